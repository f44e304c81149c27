"""Distils tiny models and prints what came of it as JSON: ``python distillation_cases.py FOLDER [sha256]``."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from tiny_models import CLASSES, network
from training_child import Notes, digest, message_of, training_data

from pipeline.building.step_worker import be_deterministic
from pipeline.compression import distillation
from pipeline.compression._narrowing import narrow, narrowed
from pipeline.training import soft_targets
from pipeline.training.fine_tuning import FineTunedSettings, fine_tune

layers = tf_keras.layers
SHAPE = (12, 12, 1)


def decided(model):
    """A model whose answers are far from one another, so that there is something to learn from it."""
    model.layers[-1].set_weights([10 * weight for weight in model.layers[-1].get_weights()])
    return model


def logits_of(model):
    """The same model without its softmax."""
    twin = tf_keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    twin.layers[-1].activation = tf_keras.activations.linear
    return twin


def teachers(folder):
    """What is learned from one teacher in each format, relative to its logits in Keras 2."""
    three = decided(network(keras))
    three.save(folder / "teacher.keras")
    three.export(folder / "saved_model", verbose=False)
    two = network(tf_keras)
    two.set_weights(three.get_weights())
    logits_of(two).save(folder / "logits.h5")
    expected = logits_of(two)(training_data(folder).inputs(slice(None))).numpy()
    expected -= expected.max(axis=-1, keepdims=True)
    found = {}
    for name, kind in (("teacher.keras", "keras3"), ("saved_model", "saved_model"), ("logits.h5", "keras2")):
        taught = soft_targets.teacher_logits(training_data(folder, (folder / name, kind)), 100)
        # Softmax takes logits and logits plus a constant for the same.
        found[name] = float(np.abs(taught - taught.max(axis=-1, keepdims=True) - expected).max())
    return found


def losses():
    """The loss of logits and of their probabilities, and its slope; hand-written for comparison."""
    teacher, student = np.float32([[4, 1, -90], [0, 2, 1]]), np.float32([[1, 0, -200], [3, 1, 0]])
    labels = np.float32([[0], [2]])
    rows = tf.constant(np.concatenate([teacher, labels], axis=1))
    found = {}
    for weight in (0.25, 1.0):
        asked = soft_targets.Distillation(temperature=3.0, weight=weight)
        logits = tf.Variable(student)
        with tf.GradientTape(persistent=True) as tape:
            of_logits = soft_targets._loss(asked, True)(rows, logits)
            of_shares = soft_targets._loss(asked, False)(rows, tf.nn.softmax(logits))
        found[str(weight)] = {
            "logits": of_logits.numpy().tolist(),
            "probabilities": of_shares.numpy().tolist(),
            "slopes": [tape.gradient(loss, logits).numpy().tolist() for loss in (of_logits, of_shares)],
            "expected": expected_loss(teacher, student, labels, weight).tolist(),
        }
    return found


def expected_loss(teacher, student, labels, weight):
    def log_softmax(values):
        values = values.astype(np.float64)
        return (
            values
            - np.log(np.exp(values - values.max(1, keepdims=True)).sum(1, keepdims=True))
            - values.max(1, keepdims=True)
        )

    soft = -(np.exp(log_softmax(teacher / 3)) * log_softmax(student / 3)).sum(1)
    hard = -log_softmax(student)[np.arange(len(labels)), labels[:, 0].astype(int)]
    return weight * 9 * soft + (1 - weight) * hard


def residual():
    inputs = tf_keras.Input((12, 12, 4))
    x = layers.Conv2D(10, 3, padding="same", name="a")(inputs)
    y = layers.BatchNormalization()(layers.Conv2D(10, 3, padding="same", name="b")(x))
    x = layers.ReLU()(layers.Add()([x, y]))
    z = layers.Conv2D(4, 1, name="to_input")(x)
    z = layers.Add()([z, inputs])
    gate = layers.Dense(10, activation="sigmoid", name="gate")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([layers.DepthwiseConv2D(3, padding="same")(x), gate])
    x = layers.Concatenate()([x, z, layers.SeparableConv2D(6, 3, padding="same", name="separable")(x)])
    x = layers.Conv2D(8, 3, groups=2, name="grouped")(layers.Conv2D(6, 1, name="before")(x))
    x = layers.Conv2D(12, 3, name="last_convolution")(x)
    return tf_keras.Model(inputs, layers.Dense(5, name="answer")(layers.Flatten()(x)))


def sequence():
    inputs = tf_keras.Input((6,), dtype="int32")
    x = layers.LSTM(8, return_sequences=True, name="lstm")(layers.Embedding(20, 8, name="embedding")(inputs))
    x = layers.MultiHeadAttention(2, 4, name="attend")(x, x)
    x = layers.Bidirectional(layers.GRU(4), name="both_ways")(x)
    x = layers.Dense(9, name="reshaped")(x)
    x = layers.Flatten()(layers.Reshape((3, 3), name="square")(x))
    x = layers.Dense(10, name="excluded")(x)
    return tf_keras.Model(inputs, layers.Dense(3, name="answer")(layers.Dense(10, name="free")(x)))


def nested():
    inner = tf_keras.Sequential(
        [tf_keras.Input(SHAPE), layers.Conv2D(8, 3, name="c"), layers.GlobalAveragePooling2D()], name="inner"
    )
    inputs = [tf_keras.Input(SHAPE) for _ in range(2)]
    return tf_keras.Model(inputs, layers.Dense(3, name="answer")(layers.Add()([inner(x) for x in inputs])))


def halves(model, **asked):
    settings = distillation.Settings(width=0.5, **asked)
    widths, left = narrowed(model, settings, 0.5)
    student = narrow(model, widths)
    assert student.output_shape == model.output_shape
    return {"widths": widths, "left": [f"{layer.layer}: {layer.reason}" for layer in left]}


def fresh_weights():
    """Of a bridged Keras 3 model every initializer is zeros: a student must not begin there."""
    model = tf_keras.Sequential(
        [tf_keras.Input((8,)), layers.Dense(6, kernel_initializer="zeros"), layers.Dense(2, kernel_initializer="zeros")]
    )
    return [bool(layer.get_weights()[0].any()) for layer in narrow(model, {model.layers[0].name: 3}).layers]


def refused(folder):
    model = network(tf_keras)
    small = tf_keras.Sequential([tf_keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(CLASSES)])
    small.save(folder / "small.keras")
    (folder / "broken.keras").write_text("nothing")
    only_ends = tf_keras.Sequential([tf_keras.Input((8,)), layers.Dense(3, name="answer")])
    one_class = tf_keras.Sequential([tf_keras.Input(SHAPE), layers.Flatten(), layers.Dense(1)])
    data = training_data(folder, (folder / "teacher.keras", "keras3"))
    unlabelled = training_data(folder, (folder / "teacher.keras", "keras3"), labels=False)
    half = FineTunedSettings(distillation={"weight": 0.5})
    cases = {
        "shapes": lambda: distillation.untreated(model, distillation.Settings(student=str(folder / "small.keras"))),
        "broken": lambda: distillation.untreated(model, distillation.Settings(student=str(folder / "broken.keras"))),
        "ends": lambda: distillation.untreated(only_ends, distillation.Settings(width=0.5)),
        "answers": lambda: fine_tune(one_class, data, half, Notes()),
        "labels": lambda: fine_tune(model, unlabelled, half, Notes()),
    }
    return {name: message_of(call) for name, call in cases.items()}


def without_labels(folder):
    """How far a student is from its teacher before and after it learned from nothing but its outputs."""
    data = training_data(folder, (folder / "teacher.keras", "keras3"), labels=False)
    student = network(tf_keras)
    expected = keras.models.load_model(folder / "teacher.keras")(data.inputs(slice(None))).numpy()
    distance = [float(np.abs(student(data.inputs(slice(None))).numpy() - expected).mean())]
    settings = FineTunedSettings(epochs=8, batch_size=32, learning_rate=0.01, distillation={"weight": 1.0})
    fine_tune(student, data, settings, Notes())
    return [*distance, float(np.abs(student(data.inputs(slice(None))).numpy() - expected).mean())]


def trained(folder):
    """A student half as wide, and one from a file, that learned for an epoch."""
    tf_keras.utils.set_random_seed(2)
    decided(network(keras)).save(folder / "teacher.keras")
    network(keras).save(folder / "student.keras")
    be_deterministic(5)
    data, report = training_data(folder, (folder / "teacher.keras", "keras3")), Notes()
    settings = [
        distillation.Settings(width=0.5, epochs=1, batch_size=64),
        distillation.Settings(student=str(folder / "student.keras"), epochs=1, batch_size=64),
    ]
    students = [distillation.rewrite(network(tf_keras), each, data, report) for each in settings]
    return {"sha256": [digest(student, data) for student in students], "notes": report.notes}


def main(folder):
    # First: layers are named by how many there were before, and the names stand in the flatbuffer.
    found = trained(folder)
    keras.utils.set_random_seed(3)
    found |= {
        "teachers": teachers(folder),
        "losses": losses(),
        "residual": halves(residual()),
        "sequence": halves(sequence(), exclude=["excl*"]),
        "nested": halves(nested()),
        "fresh_weights": fresh_weights(),
        "refused": refused(folder),
        "without_labels": without_labels(folder),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(json.dumps(trained(place))) if sys.argv[2:] else main(place)

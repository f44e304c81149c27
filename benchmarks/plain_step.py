"""One TensorFlow step as a user would script it, without edgepress: ``plain_step.py STEP SOURCE DATA_FOLDER OUT``.

The peer of ``host_overhead.py``: the same calls of TensorFlow and TF-MOT on the same data, in a process of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SCALE = np.float32(1 / 255)
EPOCHS = 3
SCORED = 2000


def inspect(source: Path, data: Path, out: Path) -> None:
    """Load the model, look at its shapes, and at what it makes of the scored images."""
    import keras
    import tensorflow as tf

    model = keras.models.load_model(source, compile=False)
    print(model.input_shape, model.output_shape)
    concrete = _concrete(model)
    images, _ = _scored(data)
    np.save(out, np.concatenate([np.asarray(concrete(tf.constant(image[np.newaxis]))) for image in images]))


def prune(source: Path, data: Path, out: Path) -> None:
    """Three epochs of polynomial pruning to 80 %, on the same rewritten model."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import keras
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras

    from pipeline.model_formats.keras_bridge import to_tf_keras

    x = np.load(data / "x_train.npy", mmap_mode="r").astype(np.float32) * SCALE
    y = np.load(data / "y_train.npy")
    steps = EPOCHS * -(-len(x) // 128)
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.5, 0.8, 0, int(0.6 * steps), frequency=steps // 50)
    model = to_tf_keras(keras.models.load_model(source, compile=False))
    model = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
    rate = tf_keras.optimizers.schedules.CosineDecay(0.002, EPOCHS * (len(x) // 128))
    model.compile(tf_keras.optimizers.Adam(rate), tf_keras.losses.SparseCategoricalCrossentropy())
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=0).batch(128, drop_remainder=True)
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    model.fit(batches.prefetch(2), epochs=EPOCHS, verbose=0, callbacks=callbacks)
    model = tfmot.sparsity.keras.strip_pruning(model)
    model.save(out)
    score(_converter(model, keras3=False).convert(), data)


def export(source: Path, data: Path, out: Path, mode: str) -> None:
    """Convert at a batch of 1, in one mode of quantization."""
    import keras
    import tf_keras

    pruned = source.name.startswith("pruned")
    model = (tf_keras if pruned else keras).models.load_model(source, compile=False)
    converter = _converter(model, keras3=not pruned)
    configure(converter, mode, data)
    content = converter.convert()
    out.write_bytes(content)
    score(content, data)


def score(content: bytes, data: Path) -> float:
    """Return the share of the scored images that a flatbuffer gets right."""
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = source["quantization"]
    images, labels = _scored(data)
    right = 0
    for image, label in zip(images, labels, strict=True):
        given = np.round(image / scale + zero_point) if scale else image
        interpreter.set_tensor(source["index"], given[np.newaxis].astype(source["dtype"]))
        interpreter.invoke()
        right += int(interpreter.get_tensor(target["index"]).argmax() == label)
    return right / SCORED


def _scored(data: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    x, y = np.load(data / "x_test.npy", mmap_mode="r"), np.load(data / "y_test.npy")
    return x[:SCORED].astype(np.float32) * SCALE, y[:SCORED]


def _concrete(model: Any) -> Any:
    import tensorflow as tf

    function = tf.function(lambda x: model(x, training=False))
    return function.get_concrete_function(tf.TensorSpec([1, 28, 28, 1], tf.float32))


def _converter(model: Any, keras3: bool) -> Any:
    import tensorflow as tf

    holder: Any = model
    if keras3:
        holder = tf.Module()
        holder.all_variables = [variable.value for variable in model.variables]
    return tf.lite.TFLiteConverter.from_concrete_functions([_concrete(model)], holder)


def configure(converter: Any, mode: str, data: Path) -> None:
    """Set up the converter as TensorFlow's guide to post-training quantization does."""
    import tensorflow as tf

    if mode == "float32":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if mode == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if mode == "int8":
        x = np.load(data / "x_train.npy", mmap_mode="r")

        def samples() -> Iterator[list[Any]]:
            for index in np.sort(np.random.default_rng(0).choice(len(x), 200, replace=False)):
                yield [x[index : index + 1].astype(np.float32) * SCALE]

        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8


if __name__ == "__main__":
    step, *paths = sys.argv[1:]
    given = [Path(path) for path in paths]
    if step in ("inspect", "prune"):
        {"inspect": inspect, "prune": prune}[step](*given)
    else:
        export(*given, mode=step)

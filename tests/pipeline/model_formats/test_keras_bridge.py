import keras
import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.model_formats.keras_bridge import to_tf_keras

pytestmark = pytest.mark.tensorflow
layers = keras.layers
IMAGE, SERIES, VOLUME, TOKENS = (8, 8, 4), (6, 4), (4, 4, 4, 2), (5,)


def residual():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, kernel_regularizer="l2")(inputs)
    x = layers.ReLU(max_value=6.0)(layers.BatchNormalization()(x))
    y = layers.SeparableConv2D(4, 3, padding="same")(layers.Dropout(0.3, seed=4)(x))
    x = layers.Concatenate()([layers.Add()([x, y]), layers.DepthwiseConv2D(3, padding="same")(x)])
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def sequential():
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, activation="gelu"), layers.LayerNormalization(), layers.Dense(2)]
    )


def nested():
    inputs = keras.Input((8, 8, 2))
    return keras.Model(inputs, layers.Dense(2)(residual()(inputs)))


def nested_three_deep():
    inputs = keras.Input((8, 8, 2))
    inner = nested()
    return keras.Model(inputs, layers.Add()([inner(inputs), layers.Dense(2)(inner(inputs))]))


def sequential_in_functional():
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(2)(sequential()(inputs)))


def functional_in_sequential():
    return keras.Sequential([keras.Input((8, 8, 2)), nested(), layers.Dense(2)])


def nested_at_the_end():
    inputs = keras.Input((6,))
    return keras.Model(inputs, sequential()(layers.Dense(6)(inputs)))


def several_inputs_and_outputs():
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    x = layers.Concatenate()([layers.Dense(4)(left), layers.Dense(4)(right)])
    return keras.Model([left, right], [layers.Dense(2, name="a")(x), layers.Dense(3, name="b")(x)])


def named_inputs():
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    return keras.Model({"left": left, "right": right}, layers.Dense(2)(layers.Subtract()([left, right])))


def attention():
    inputs, memory = keras.Input(SERIES), keras.Input((3, 4))
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    x = layers.MultiHeadAttention(2, 4)(x, memory, memory)
    return keras.Model([inputs, memory], layers.MultiHeadAttention(2, 4)(x, value=memory, use_causal_mask=True))


def merging_layers():
    inputs = keras.Input((6,))
    a, b, c = (layers.Dense(4)(inputs) for _ in range(3))
    return keras.Model(inputs, layers.Multiply()([a, layers.Average()([a, b, c]), layers.Maximum()([b, c])]))


def dot():
    inputs = keras.Input(SERIES)
    return keras.Model(inputs, layers.Dot(axes=(2, 2))([layers.Dense(3)(inputs), layers.Dense(3)(inputs)]))


def operators():
    inputs = keras.Input((6,))
    a, b = layers.Dense(4)(inputs), layers.Dense(4)(inputs)
    return keras.Model(inputs, (a + b) * (a - b))


def embedding(dtype):
    tokens = keras.Input(TOKENS, dtype=dtype)
    return keras.Model(tokens, layers.Dense(2)(layers.Flatten()(layers.Embedding(10, 4)(tokens))))


def lstm_with_state():
    inputs = keras.Input(SERIES)
    _, hidden, cell = layers.LSTM(3, return_state=True)(inputs)
    return keras.Model(inputs, layers.LSTM(3)(inputs, initial_state=[hidden, cell]))


def one(shape, *made):
    return lambda: keras.Sequential([keras.Input(shape), *(make() for make in made)])


BUILDS = {
    "residual": residual,
    "sequential": sequential,
    "nested": nested,
    "nested three deep": nested_three_deep,
    "sequential in functional": sequential_in_functional,
    "functional in sequential": functional_in_sequential,
    "nested at the end": nested_at_the_end,
    "several inputs and outputs": several_inputs_and_outputs,
    "named inputs": named_inputs,
    "attention": attention,
    "merging layers": merging_layers,
    "dot": dot,
    "operators": operators,
    "tokens": lambda: embedding("int32"),
    "tokens as float": lambda: embedding("float32"),
    "lstm with state": lstm_with_state,
    "LayerNormalization": one(IMAGE, lambda: layers.LayerNormalization(axis=[1, 2])),
    "GroupNormalization": one(IMAGE, lambda: layers.GroupNormalization(2)),
    "LSTM": one(SERIES, lambda: layers.LSTM(3, return_sequences=True, dropout=0.1), lambda: layers.LSTM(2)),
    "GRU": one(SERIES, lambda: layers.GRU(3, reset_after=False), lambda: layers.Dense(2)),
    "Bidirectional": one(SERIES, lambda: layers.Bidirectional(layers.GRU(3), merge_mode="sum")),
    "TimeDistributed": one((3, 8, 8, 2), lambda: layers.TimeDistributed(residual())),
    "SeparableConv1D": one(SERIES, lambda: layers.SeparableConv1D(3, 3)),
    "Conv1D": one(SERIES, lambda: layers.Conv1D(3, 3, padding="causal", dilation_rate=2)),
    "Conv3D": one(VOLUME, lambda: layers.Conv3D(3, 2)),
    "Conv1DTranspose": one(SERIES, lambda: layers.Conv1DTranspose(3, 3, strides=2)),
    "Conv2DTranspose": one(IMAGE, lambda: layers.Conv2DTranspose(3, 3, strides=2, padding="same")),
    "Conv3DTranspose": one(VOLUME, lambda: layers.Conv3DTranspose(3, 2)),
    "Rescaling": one(IMAGE, lambda: layers.Rescaling(1 / 255, offset=-0.5)),
    "PReLU": one(IMAGE, lambda: layers.PReLU(shared_axes=[1, 2])),
    "LeakyReLU": one(IMAGE, lambda: layers.LeakyReLU(0.1)),
    "open sizes": one((None, None, 3), lambda: layers.Conv2D(2, 3), layers.GlobalMaxPooling2D),
}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_a_keras_3_model_and_its_twin_give_the_same(build):
    keras.utils.set_random_seed(1)
    model = build()
    for weight in model.weights:
        weight.assign(np.random.default_rng(2).uniform(0.1, 0.6, weight.shape))
    twin = to_tf_keras(model)
    assert type(twin).__module__.startswith("tf_keras")
    assert {layer.name for layer in model.layers} <= {layer.name for layer in twin.layers}
    random = np.random.default_rng(3)
    given = [random.integers(0, 10, [5, *(size or 9 for size in tensor.shape[1:])]) / 1.0 for tensor in model.inputs]
    given = [array.astype(tensor.dtype) for array, tensor in zip(given, model.inputs, strict=True)]
    expected, found = (m(given if len(given) > 1 else given[0], training=False) for m in (model, twin))
    for ours, theirs in zip(keras.tree.flatten(expected), keras.tree.flatten(found), strict=True):
        np.testing.assert_allclose(np.asarray(theirs), np.asarray(ours), rtol=1e-4, atol=1e-4)


def scaled():
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(2)(inputs * 2.0))


REFUSED = {
    "an operation with a number": (scaled, r"layer multiply\w* \(Multiply\) is an operation of Keras 3"),
    "a layer that tf_keras lacks": (
        one((6,), lambda: layers.RMSNormalization(name="own_norm")),
        r"layer own_norm \(RMSNormalization\) does not exist in tf_keras",
    ),
    "a setting that tf_keras lacks": (
        one((6,), lambda: layers.LayerNormalization(name="norm", center=False, rms_scaling=True)),
        r"layer norm \(LayerNormalization\) has rms_scaling True, which tf_keras does not know",
    ),
    "an activation that tf_keras lacks": (
        one((6,), lambda: layers.Dense(2, activation="hard_silu", name="head")),
        r"layer head \(Dense\): .*Unknown activation function .hard_silu.",
    ),
}


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED)
def test_what_tf_keras_cannot_do_is_refused_with_the_layer_s_name(build, message):
    with pytest.raises(ModelError, match=message):
        to_tf_keras(build())


def test_a_subclassed_model_is_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ModelError, match=r"a subclassed Keras 3 model \(Own\) has no layers"):
        to_tf_keras(Own())

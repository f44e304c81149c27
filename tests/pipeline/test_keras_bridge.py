import keras
import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.keras_bridge import to_tf_keras

pytestmark = pytest.mark.tensorflow
layers = keras.layers


def residual():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, kernel_regularizer="l2")(inputs)
    x = layers.ReLU(max_value=6.0)(layers.BatchNormalization()(x))
    y = layers.SeparableConv2D(4, 3, padding="same")(layers.Dropout(0.3)(x))
    x = layers.Concatenate()([layers.Add()([x, y]), layers.DepthwiseConv2D(3, padding="same")(x)])
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def sequential():
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, activation="gelu"), layers.LayerNormalization(), layers.Dense(2)]
    )


def nested():
    inputs = keras.Input((8, 8, 2))
    return keras.Model(inputs, layers.Dense(2)(residual()(inputs)))


@pytest.mark.parametrize("build", [residual, sequential, nested])
def test_a_keras_3_model_and_its_twin_give_the_same(build):
    keras.utils.set_random_seed(1)
    model = build()
    for weight in model.trainable_weights:
        weight.assign(np.random.default_rng(2).normal(size=weight.shape) * 0.3)
    twin = to_tf_keras(model)
    assert type(twin).__module__.startswith("tf_keras")
    x = np.random.default_rng(3).random((5, *model.input_shape[1:]), dtype=np.float32)
    np.testing.assert_allclose(np.asarray(twin(x)), np.asarray(model(x)), atol=1e-5)


def test_a_layer_that_takes_several_tensors_by_position_is_named():
    inputs = keras.Input((4, 8))
    outputs = layers.MultiHeadAttention(2, 4, name="attend")(inputs, inputs)
    with pytest.raises(ModelError, match=r"layer attend \(MultiHeadAttention\) takes several tensors by position"):
        to_tf_keras(keras.Model(inputs, outputs))


def test_a_subclassed_model_is_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ModelError):
        to_tf_keras(Own())

"""One flatbuffer as others document it: ``compression_yield_peers.py RECIPE CHECKPOINT DATA.npz OUT.tflite``.

The recipes of TensorFlow's guides (post-training quantization; "Pruning in Keras example"; "Sparsity and cluster
preserving quantization aware training (PCQAT) Keras example"), with the settings that stand there, and the static int8
and dynamic recipes of ai-edge-quantizer. No part of edgepress but its rewriting of a Keras 3 model for TF-MOT.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SCALE = np.float32(1 / 255)
CALIBRATION = 100
BATCH = 128

Data = dict[str, np.ndarray[Any, Any]]


def tf_int8(source: Path, data: Data) -> bytes:
    """Full integer quantization with the first hundred training images."""
    return _int8(_keras3(source), data)


def tf_dynamic_range(source: Path, data: Data) -> bytes:
    """Dynamic range quantization."""
    import tensorflow as tf

    converter = _converter(_keras3(source))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    content: bytes = converter.convert()
    return content


def tf_pruned_int8(source: Path, data: Data) -> bytes:
    """The guide's polynomial pruning to 80 % in two epochs, then full integer quantization."""
    import tensorflow_model_optimization as tfmot

    epochs = 2
    steps = int(np.ceil(len(data["x_train"]) / BATCH)) * epochs
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.50, 0.80, begin_step=0, end_step=steps)
    model = tfmot.sparsity.keras.prune_low_magnitude(_tf_keras(source), pruning_schedule=schedule)
    _fit(model, data, "adam", epochs, [tfmot.sparsity.keras.UpdatePruningStep()])
    return _int8(tfmot.sparsity.keras.strip_pruning(model), data)


def tf_pcqat(source: Path, data: Data) -> bytes:
    """The guide's chain: half of the weights pruned, eight clusters, then PCQAT."""
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster

    sparsity, quantization = tfmot.sparsity.keras, tfmot.quantization.keras
    schedule = sparsity.ConstantSparsity(0.5, begin_step=0, frequency=100)
    pruned = sparsity.prune_low_magnitude(_tf_keras(source), pruning_schedule=schedule)
    _fit(pruned, data, tf_keras.optimizers.Adam(1e-5), 3, [sparsity.UpdatePruningStep()])
    clustered = cluster.cluster_weights(
        sparsity.strip_pruning(pruned),
        number_of_clusters=8,
        cluster_centroids_init=tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
        preserve_sparsity=True,
    )
    _fit(clustered, data, tf_keras.optimizers.Adam(1e-5), 3)
    annotated = quantization.quantize_annotate_model(tfmot.clustering.keras.strip_clustering(clustered))
    scheme = tfmot.experimental.combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True)
    aware = quantization.quantize_apply(annotated, scheme)
    _fit(aware, data, "adam", 1)
    converter = _converter(aware)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    content: bytes = converter.convert()
    return content


def aeq_static_int8(source: Path, data: Data) -> bytes:
    """ai-edge-quantizer's static recipe: int8 weights and activations."""
    from ai_edge_quantizer import quantizer, recipe

    content = _converter(_keras3(source)).convert()
    made = quantizer.Quantizer(content, recipe.static_wi8_ai8())
    name = _input_name(content)
    samples = [{name: image[np.newaxis]} for image in _images(data, CALIBRATION)]
    return bytes(made.quantize(made.calibrate({"serving_default": samples})).quantized_model)


def aeq_dynamic(source: Path, data: Data) -> bytes:
    """ai-edge-quantizer's dynamic recipe: int8 weights, float activations."""
    from ai_edge_quantizer import quantizer, recipe

    made = quantizer.Quantizer(_converter(_keras3(source)).convert(), recipe.dynamic_wi8_afp32())
    return bytes(made.quantize().quantized_model)


RECIPES = {
    function.__name__: function
    for function in (tf_int8, tf_dynamic_range, tf_pruned_int8, tf_pcqat, aeq_static_int8, aeq_dynamic)
}


def _keras3(source: Path) -> Any:
    import keras

    return keras.models.load_model(source, compile=False)


def _tf_keras(source: Path) -> Any:
    from pipeline.model_formats.keras_bridge import to_tf_keras

    return to_tf_keras(_keras3(source))


def _fit(model: Any, data: Data, optimizer: Any, epochs: int, callbacks: list[Any] | None = None) -> None:
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy")
    images = data["x_train"].astype(np.float32) * SCALE
    model.fit(images, data["y_train"], batch_size=BATCH, epochs=epochs, verbose=0, callbacks=callbacks)


def _converter(model: Any) -> Any:
    """Return a converter at a batch of 1: with an open one every runtime is slower, which would flatter edgepress."""
    import tensorflow as tf

    function = tf.function(lambda image: model(image, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec([1, 28, 28, 1], tf.float32, name="image"))
    holder = tf.Module()
    # A Keras 3 variable holds TensorFlow's as its value; tf_keras's own are TensorFlow's.
    holder.all_variables = [v if isinstance(v, tf.Variable) else v.value for v in model.variables]
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder)


def _int8(model: Any, data: Data) -> bytes:
    import tensorflow as tf

    def samples() -> Iterator[list[Any]]:
        for image in _images(data, CALIBRATION):
            yield [image[np.newaxis]]

    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    content: bytes = converter.convert()
    return content


def _images(data: Data, count: int) -> np.ndarray[Any, Any]:
    scaled: np.ndarray[Any, Any] = data["x_train"][:count].astype(np.float32) * SCALE
    return scaled


def _input_name(content: bytes) -> str:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=content).get_signature_runner("serving_default")
    return str(next(iter(runner.get_input_details())))


if __name__ == "__main__":
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    recipe_name, checkpoint, samples_file, out = sys.argv[1:]
    with np.load(samples_file) as file:
        arrays = {key: file[key] for key in ("x_train", "y_train")}
    Path(out).write_bytes(RECIPES[recipe_name](Path(checkpoint), arrays))

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


def inspect(source: Path, data: Path, out: Path) -> None:
    """Load the model and look at its shapes."""
    import keras

    model = keras.models.load_model(source, compile=False)
    out.write_text(f"{model.input_shape} {model.output_shape}")


def prune(source: Path, data: Path, out: Path) -> None:
    """Three epochs of polynomial pruning to 80 %, on the same rewritten model."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import keras
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras

    from pipeline.keras_bridge import to_tf_keras

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
    tfmot.sparsity.keras.strip_pruning(model).save(out)


def export(source: Path, data: Path, out: Path, mode: str) -> None:
    """Convert at a batch of 1, in one mode of quantization."""
    import keras
    import tensorflow as tf
    import tf_keras

    pruned = source.name.startswith("pruned")
    model = (tf_keras if pruned else keras).models.load_model(source, compile=False)
    function = tf.function(lambda x: model(x, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec([1, 28, 28, 1], tf.float32))
    holder: Any = model
    if not pruned:
        holder = tf.Module()
        holder.all_variables = [variable.value for variable in model.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder)
    configure(converter, mode, data)
    out.write_bytes(converter.convert())


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

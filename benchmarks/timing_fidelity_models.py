"""Writes the models of ``timing_fidelity.py``: ``timing_fidelity_models.py FOLDER``, with real TensorFlow.

For each model NAME: ``NAME.tflite``, and in ``NAME.npz`` the ``sample`` as a job gives it, the ``input`` that the model
makes of it, and the ``output`` that TensorFlow Lite gives for that on the host.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from device_agent.runtimes import Tensor
from device_agent.samples import quantize
from models import fashion_mnist
from pipeline import export
from pipeline.cache import user_cache
from pipeline.compression import NoReport, quantization
from pipeline.training.training_data import TrainingData

# As small boards run it: 1.6 MB of weights, few enough to stay in a cache. What is timed is then the runtime, and not
# how much of the memory's bandwidth this machine's neighbours leave.
MOBILENET_SIDE, MOBILENET_ALPHA, MOBILENET_CLASSES = 96, 0.35, 10


def main(folder: Path) -> None:
    """Write the Fashion-MNIST reference in float32 and int8, and a MobileNetV2 with random weights."""
    import keras

    dataset = fashion_mnist.load_data(None, user_cache().folder, lambda what, done, total: None)
    data = _data(folder, "fashion_mnist", dataset.x_train[:1000], dataset.scale)
    model = keras.models.load_model(fashion_mnist.CHECKPOINT, compile=False)
    source = export.Convertible(model, data)
    int8 = quantization.convert(source, quantization.Settings(mode="int8"), data, NoReport())
    _write(folder, "fashion_mnist_float32", source.flatbuffer(), data)
    _write(folder, "fashion_mnist_int8", int8, data)
    keras.utils.set_random_seed(0)
    shape = (MOBILENET_SIDE, MOBILENET_SIDE, 3)
    mobilenet = keras.applications.MobileNetV2(
        input_shape=shape, alpha=MOBILENET_ALPHA, weights=None, classes=MOBILENET_CLASSES
    )
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
    data = _data(folder, "mobilenet_v2", images, 1 / 255)
    _write(folder, "mobilenet_v2_float32", export.Convertible(mobilenet, data).flatbuffer(), data)


def _data(folder: Path, name: str, inputs: np.ndarray[Any, Any], scale: float) -> TrainingData:
    path = folder / f"{name}.npy"
    np.save(path, inputs)
    return TrainingData(path, None, scale, 0.0, 0, "litert")


def _write(folder: Path, name: str, content: bytes, data: TrainingData) -> None:
    import tensorflow as tf

    (folder / f"{name}.tflite").write_bytes(content)
    sample = data.inputs([0])
    (info,), _ = export.flatbuffer_tensors(content)
    given = quantize(sample, Tensor(info.name, info.shape, info.dtype, info.scale or 0.0, info.zero_point or 0))
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], given)
    interpreter.invoke()
    output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.savez(folder / f"{name}.npz", sample=sample, input=given, output=output)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

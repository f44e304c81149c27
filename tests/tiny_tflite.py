"""Makes tiny flatbuffers with random weights for the tests of runtimes: ``python tiny_tflite.py FOLDER``.

* ``plain``: operators that every delegate takes, and any batch.
* ``mixed``: the same with a REVERSE_V2 in between, which XNNPACK does not take.
* ``integer``: an ARG_MAX of 64-bit integers, which the GPU does not take.
* ``heavy``: three convolutions that take tens of microseconds each.
* ``fixed``: a reshape to one row of fixed length, so one sample at a time.
* ``one_row``: a reshape to one row of any length: it takes more samples, and answers with one row for all of them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

SHAPE = (1, 8, 8, 1)
HEAVY_SHAPE = (1, 48, 48, 1)


def make_once(base: Path) -> Path:
    """Return a folder below ``base`` with the flatbuffers, made by the first call."""
    folder = base / "tiny_tflite"
    if not folder.is_dir():
        folder.mkdir()
        made = subprocess.run([sys.executable, __file__, str(folder)], capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
    return folder


def main(folder: Path) -> None:
    """Write the flatbuffers."""
    import tensorflow as tf

    random = tf.random.Generator.from_seed(1)
    kernel = tf.constant(random.normal([3, 3, 1, 8]))
    weights = tf.constant(random.normal([8, 10]))
    deeper = [tf.constant(random.normal([3, 3, 8, 8])) for _ in range(2)]

    def convolved(x: Any) -> Any:
        return tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "VALID"))

    def classified(x: Any) -> Any:
        return tf.nn.softmax(tf.matmul(tf.reduce_mean(x, [1, 2]), weights))

    def heavy(x: Any) -> Any:
        x = convolved(x)
        for each in deeper:
            x = tf.nn.relu(tf.nn.conv2d(x, each, 1, "VALID"))
        return classified(x)

    networks = {
        "plain": lambda x: classified(convolved(x)),
        "mixed": lambda x: classified(tf.nn.relu(tf.reverse(convolved(x), [1]) - 0.1)),
        "integer": lambda x: tf.cast(tf.argmax(convolved(x), -1), tf.float32),
        "heavy": heavy,
        "fixed": lambda x: tf.reshape(convolved(x), [1, 288]) * 2.0,
        "one_row": lambda x: tf.reshape(convolved(x), [1, -1]) * 2.0,
    }
    for name, network in networks.items():
        shape = HEAVY_SHAPE if name == "heavy" else SHAPE
        function = tf.function(network).get_concrete_function(tf.TensorSpec(shape, tf.float32))
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
        (folder / f"{name}.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]))

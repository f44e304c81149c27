"""How far a model's outputs are from the baseline's, on the same device and runtime and the same samples.

The score pass of the baseline comes first and leaves its outputs in the job's folder; the others read them along.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from device_agent.files import sync_folder
from device_agent.protocol import OutputParity

# What the outputs of the baseline may take on the board's disk, for each output.
MOST_BYTES = 64 << 20


class ParityMismatch(ValueError):
    """Outputs that cannot be compared with the baseline's; the text has both shapes."""


def _path(folder: Path, output: int) -> Path:
    return folder / f"outputs-{output}.npy"


class OutputWriter:
    """Keeps the baseline's outputs, of as many samples as ``MOST_BYTES`` allow; complete files appear at the end."""

    def __init__(self, folder: Path, samples: int) -> None:
        self._folder = folder
        self._samples = samples
        self._kept = 0
        self._files: list[BinaryIO] = []

    def __enter__(self) -> OutputWriter:
        return self

    def add(self, outputs: Sequence[NDArray[Any]]) -> None:
        """Append one sample's outputs, each as real numbers without the batch dimension."""
        if not self._files:
            self._begin(outputs)
        if self._kept:
            for file, output in zip(self._files, outputs):
                # Not a memory map: a full disk is then an error and not a SIGBUS.
                file.write(np.ascontiguousarray(output, np.float32).tobytes())
            self._kept -= 1

    def _begin(self, outputs: Sequence[NDArray[Any]]) -> None:
        largest = max(4 * output.size for output in outputs)
        self._kept = max(1, min(self._samples, MOST_BYTES // max(largest, 1)))
        for place, output in enumerate(outputs):
            file = _path(self._folder, place).with_suffix(".part").open("wb")
            self._files.append(file)
            header = {"descr": "<f4", "fortran_order": False, "shape": (self._kept, *output.shape)}
            np.lib.format.write_array_header_1_0(file, header)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for place, file in enumerate(self._files):
            file.flush()
            # Before the score is written: after a power cut the one must not be there without the other.
            os.fsync(file.fileno())
            file.close()
            path = _path(self._folder, place)
            part = path.with_suffix(".part")
            if error is None:
                part.replace(path)
            else:
                part.unlink()
        sync_folder(self._folder)


class OutputComparison:
    """Compares a model's outputs with those that the baseline left, sample by sample."""

    def __init__(self, folder: Path) -> None:
        self._expected: list[NDArray[Any]] = []
        while (path := _path(folder, len(self._expected))).is_file():
            self._expected.append(np.load(path, mmap_mode="r", allow_pickle=False))
        self._signal = [0.0] * len(self._expected)
        self._noise = [0.0] * len(self._expected)
        self._largest = [0.0] * len(self._expected)
        self._seen = 0

    def add(self, outputs: Sequence[NDArray[Any]]) -> None:
        """Compare the next sample's outputs.

        Raises:
            ParityMismatch: if there is another number of them, or one of another shape.
        """
        if not self._expected or self._seen >= len(self._expected[0]):
            return
        if len(outputs) != len(self._expected):
            raise ParityMismatch(f"model has {len(outputs)} outputs, the baseline {len(self._expected)}")
        for place, output in enumerate(outputs):
            self._compare(place, output, self._expected[place][self._seen])
        self._seen += 1

    def _compare(self, place: int, output: NDArray[Any], expected: NDArray[Any]) -> None:
        if output.shape != expected.shape:
            shapes = f"output {place} has the shape {list(output.shape)}, the baseline's {list(expected.shape)}"
            raise ParityMismatch(shapes)
        difference = output.astype(np.float64) - expected
        self._signal[place] += float(np.square(expected, dtype=np.float64).sum())
        self._noise[place] += float(np.square(difference).sum())
        self._largest[place] = max(self._largest[place], float(np.abs(difference).max(initial=0.0)))

    def result(self, names: Sequence[str]) -> tuple[OutputParity, ...]:
        """Return the parity of each output, under ``names``; empty when the baseline left nothing."""
        return tuple(
            OutputParity(name, signal_to_noise_db(signal, noise), largest, self._seen)
            for name, signal, noise, largest in zip(names, self._signal, self._noise, self._largest)
        )


def signal_to_noise_db(signal: float, noise: float) -> float | None:
    """Return 10 log10(signal / noise) for two sums of squares, None without noise; -400 stands for no signal at all.

    The definition of ONNX Runtime's and TensorFlow's quantization debuggers, the baseline being the signal.
    """
    if noise == 0:
        return None
    return max(10 * float(np.log10(signal / noise)), -400.0) if signal else -400.0

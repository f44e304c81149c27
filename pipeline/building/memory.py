"""How much memory a step needs and this machine has, so that what cannot fit is told before anything starts.

An estimate by what was measured of step processes: 610 to 720 MiB for a tiny model; for one of 98 MiB of weights
1.1 GiB to load it, 1.4 to convert it and 1.9 to quantize it. The training samples are there twice, as float32.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ModelError

MEMINFO = Path("/proc/meminfo")
TENSORFLOW_BYTES = 800 << 20
MODEL_COPIES = 13
SAMPLE_COPIES = 2
_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that one step needs, and bytes that all may take together; None when this machine does not tell."""

    step_bytes: int
    available_bytes: int | None

    @property
    def side_by_side(self) -> int:
        """How many steps may run at once: one at least, one for each core at most."""
        cores = os.cpu_count() or 1
        if self.available_bytes is None:
            return cores
        return max(1, min(cores, self.available_bytes // self.step_bytes))

    def check(self, model: Path, model_bytes: int) -> None:
        """Raise ModelError, with both numbers, when not even one step fits."""
        if self.available_bytes is not None and self.step_bytes > self.available_bytes:
            raise ModelError(
                f"model {model}: has {_mib(model_bytes)} MiB, for which a step needs about {_mib(self.step_bytes)} MiB "
                f"of memory, with TensorFlow and the training samples; {_mib(self.available_bytes)} MiB are available "
                "(limits.host_memory_mib, or what is free)"
            )


def plan(model_bytes: int, sample_bytes: int, limit_mib: int, meminfo: Path = MEMINFO) -> MemoryPlan:
    """Return what one step needs and what there is.

    Args:
        model_bytes: the size of the model's file or folder.
        sample_bytes: the size of the training samples as float32.
        limit_mib: how much all steps may take together; 0 for what is available.
        meminfo: the kernel's file that tells it.
    """
    needed = TENSORFLOW_BYTES + MODEL_COPIES * model_bytes + SAMPLE_COPIES * sample_bytes
    return MemoryPlan(needed, limit_mib << 20 if limit_mib else _available(meminfo))


def _available(meminfo: Path) -> int | None:
    try:
        found = _AVAILABLE.search(meminfo.read_text(encoding="ascii"))
    except OSError:
        return None
    return None if found is None else int(found[1]) << 10


def _mib(size: int) -> int:
    return -(-size >> 20)

"""How much longer ``edgepress --help`` takes than importing click: medians of interleaved runs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 21
LIMIT_MS = 100.0


def main() -> int:
    """Print both medians and their difference; return 1 when the limit is missed."""
    commands = {
        "import click": [sys.executable, "-c", "import click"],
        "edgepress --help": [str(Path(sys.executable).with_name("edgepress")), "--help"],
    }
    times_ms: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            times_ms[name].append((time.perf_counter() - start) * 1000)
    medians = {name: statistics.median(times) for name, times in times_ms.items()}
    difference = medians["edgepress --help"] - medians["import click"]
    for name, median in medians.items():
        print(f"{name}: {median:.1f} ms (median of {ROUNDS})")
    print(f"difference: {difference:.1f} ms; limit {LIMIT_MS:.0f} ms")
    loaded = loads_tensorflow()
    print(f"edgepress --help loads TensorFlow: {'yes' if loaded else 'no'}")
    return int(difference > LIMIT_MS or loaded)


def loads_tensorflow() -> bool:
    """Whether the help text costs an import of TensorFlow."""
    code = "import sys; from pipeline.cli import cli; cli(['--help'], standalone_mode=False); "
    code += "sys.exit('tensorflow' in sys.modules)"
    return subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode != 0


if __name__ == "__main__":
    sys.exit(main())

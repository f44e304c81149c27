"""Whether a runtime computes here what it computes elsewhere: ``python -m device_agent.selftest NAME``.

A tiny int8 model is run on fixed inputs, and its outputs are compared with those that were written down for this
version of the runtime, bit for bit: a library that loads and answers nonsense is found before anything is measured with
it. ``golden/`` has the model and the numbers; tests/make_golden.py has made them.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from pathlib import Path

import device_agent
from device_agent import runtimes

GOLDEN = Path(__file__).parent / "golden"
# The default of both runtimes, and of an experiment.
_DELEGATE = "xnnpack"


def main() -> int:
    """Test the runtime that the command line names; print its version, or raise what is wrong."""
    name = sys.argv[1]
    import_everything()
    runtime = runtimes.find(name)
    runtime.probe()
    check_outputs(name)
    print(json.dumps({"version": runtime.version()}))
    return 0


def import_everything() -> None:
    """Import every module of the agent: this Python may lack something; and it writes their .pyc files."""
    for found in pkgutil.walk_packages(device_agent.__path__, "device_agent."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)


def check_outputs(name: str) -> None:
    """Raise unless the golden model gives the outputs written down for this runtime.

    Raises:
        RuntimeError: with the first input whose output differs, or when no numbers are known of this version.
    """
    import numpy as np

    golden = json.loads((GOLDEN / "golden.json").read_bytes())
    version = f"{name} {runtimes.find(name).version()}"
    if version not in golden["outputs"]:
        raise RuntimeError(f"no numbers are known of {version}; known: {', '.join(golden['outputs'])}")
    expected = golden["outputs"][version]
    model = runtimes.find(name).open_model(str(GOLDEN / "golden.tflite"), 1, _DELEGATE, 1)
    shape = model.inputs[0].shape
    for place, (values, wanted) in enumerate(zip(golden["inputs"], expected)):
        model.set_input(0, np.array(values, np.int8).reshape(shape))
        model.invoke()
        found = model.get_output(0).reshape(-1).astype(int).tolist()
        if found != wanted:
            raise RuntimeError(f"{version} gives {found} for input {place} of the golden model, not {wanted}")


if __name__ == "__main__":
    sys.exit(main())

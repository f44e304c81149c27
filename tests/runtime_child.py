"""Runs in a runtime's own Python, which has no pytest; prints one line of JSON at the end.

``runtime_child.py open RUNTIME MODEL DELEGATE BATCH`` runs a model once on fixed random numbers;
``runtime_child.py profile REQUEST.json`` runs the profile pass.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def run_model(runtime: str, path: str, delegate: str, batch: str) -> dict:
    from device_agent import runtimes
    from device_agent.delegation import delegation_of, operators_to_bytes
    from device_agent.protocol import to_json

    try:
        model = runtimes.find(runtime).open_model(path, 1, delegate, int(batch))
    except (runtimes.DelegateUnavailable, runtimes.BatchRefused) as error:
        return {"error": type(error).__name__, "message": str(error)}
    sample = np.random.default_rng(0).random(model.inputs[0].shape[1:], dtype=np.float32)
    model.set_input(0, np.stack([sample * (row + 1) for row in range(int(batch))]))
    model.invoke()
    return {
        "inputs": [[tensor.name, tensor.shape] for tensor in model.inputs],
        "output_shape": model.outputs[0].shape,
        "output": model.get_output(0).tolist(),
        "operators": json.loads(operators_to_bytes(model)),
        "delegation": to_json(delegation_of(model, delegate, "a file")),
    }


def profile(request_path: str) -> dict:
    from device_agent import profiling
    from device_agent.blocks import Request
    from device_agent.protocol import from_json, to_json

    request = from_json(Request, json.loads(Path(request_path).read_bytes()))
    found, files = profiling.run(request)
    return {"profile": to_json(found), "content": files[found.file_name].decode() if files else ""}


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    answer = {"open": run_model, "profile": profile}[command](*arguments)
    print(json.dumps(answer))

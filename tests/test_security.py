"""Claims of docs/security.md that are about all of the code: what it never does, and what it is built from."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [
    path for package in ("pipeline", "device_agent", "models") for path in sorted((ROOT / package).rglob("*.py"))
]

RUN_CODE = {"eval", "exec", "compile", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
UNPICKLE = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
UNSAFE = {"shell": True, "allow_pickle": True, "safe_mode": False, "enable_unsafe_deserialization": True}
BLIND_TRUST = {"AutoAddPolicy", "WarningPolicy", "AgentRequestHandler"}


def sins(code: str) -> list[str]:
    """Return what in ``code`` runs a shell, code from data, or believes any host."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += [called] if called in RUN_CODE else []
            found += [f"{word.arg}={word.value.value}" for word in node.keywords if is_unsafe(word)]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [name for name in names if name.split(".")[0] in UNPICKLE]
        elif isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            found += [name] if name in BLIND_TRUST else []
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += re.findall(r"StrictHostKeyChecking[ =](?:no|off|accept-new)", node.value)
    return found


def is_unsafe(word: ast.keyword) -> bool:
    return word.arg in UNSAFE and isinstance(word.value, ast.Constant) and word.value.value is UNSAFE[word.arg]


@pytest.mark.parametrize(
    ("code", "sin"),
    [
        ("eval('1')", "eval"),
        ("import os\nos.system('ls')", "os.system"),
        ("import subprocess\nsubprocess.run('ls', shell=True)", "shell=True"),
        ("import pickle", "pickle"),
        ("from marshal import loads", "marshal"),
        ("np.load(path, allow_pickle=True)", "allow_pickle=True"),
        ("keras.models.load_model(path, safe_mode=False)", "safe_mode=False"),
        ("client.set_missing_host_key_policy(paramiko.AutoAddPolicy())", "AutoAddPolicy"),
        ("['ssh', '-o', 'StrictHostKeyChecking=no']", "StrictHostKeyChecking=no"),
    ],
)
def test_what_must_not_be_in_the_code_would_be_found(code, sin):
    assert sins(code) == [sin]


def test_no_shell_no_code_from_data_and_no_blind_trust_is_in_the_code():
    found = {str(path.relative_to(ROOT)): sins(path.read_text()) for path in MODULES}
    assert {path: what for path, what in found.items() if what} == {}


def locked(text: str) -> dict[str, int]:
    """Return each requirement of a lock file and how many hashes it has."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    return {entry.split()[0]: entry.count("--hash=sha256:") for entry in entries if entry.strip()}


@pytest.mark.parametrize("file", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda file: file.name)
def test_every_package_is_locked_to_one_version_with_its_hashes(file):
    found = locked(file.read_text())
    assert found
    assert [name for name, hashes in found.items() if "==" not in name or not hashes] == []


def test_nothing_is_installed_whose_hash_is_not_asked_for():
    lines = [line for line in (ROOT / "Makefile").read_text().splitlines() if "$(PIP) install" in line]
    assert sum("--require-hashes -r" in line or "--require-hashes $(patsubst %,-r %" in line for line in lines) == 3
    # Without them: this project itself, of which nothing is fetched, and what writes the lock files anew.
    others = [line.split("install ")[1] for line in lines if "--require-hashes" not in line]
    assert others == ["--no-build-isolation --no-deps --editable .", "uv"]

"""Hashes of small and of large files, with and without a Python that can help."""

import hashlib
import subprocess
import sys

import pytest

from device_agent import sha256

LARGE = bytes(range(256)) * (1 << 16)


@pytest.mark.parametrize("content", [b"", b"a model", LARGE, LARGE + b"!"], ids=["empty", "small", "large", "odd"])
def test_the_hash_of_a_file_is_that_of_its_content(tmp_path, content):
    (tmp_path / "a file").write_bytes(content)
    assert sha256.sha256_of_file(tmp_path / "a file") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("python", ["/bin/false", "/bin/echo", "/no/such/python"])
def test_a_large_file_is_hashed_here_where_no_other_python_can(tmp_path, monkeypatch, python):
    (tmp_path / "large").write_bytes(LARGE)
    monkeypatch.setattr(sys, "executable", python)
    assert sha256.sha256_of_file(tmp_path / "large") == hashlib.sha256(LARGE).hexdigest()


def test_a_large_file_is_hashed_without_openssl_in_this_process(tmp_path, untraced):
    (tmp_path / "large").write_bytes(LARGE)
    program = (
        "import pathlib, sys; from device_agent.sha256 import sha256_of_file; "
        "print(sha256_of_file(pathlib.Path(sys.argv[1])), '_hashlib' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "large")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [hashlib.sha256(LARGE).hexdigest(), "False"]

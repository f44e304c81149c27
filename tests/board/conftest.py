"""The emulated board, one for all tests of this folder; each module begins with a bare one."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest
from emulated_pi import BOTH, EmulatedPi


@pytest.fixture(scope="session")
def pi(tmp_path_factory):
    """The board, up."""
    emulated = EmulatedPi(tmp_path_factory.mktemp("board"), Path(platformdirs.user_cache_dir()))
    try:
        emulated.log(f"first start, with its image built as far as it was not: {emulated.up():.0f} s")
        yield emulated
    finally:
        emulated.end()


@pytest.fixture(scope="module")
def bare(pi):
    """The board as it was when nobody had done anything to it."""
    pi.log(f"bare again after {pi.reset():.1f} s")
    return pi


@pytest.fixture(scope="module")
def provisioned(bare):
    """The board with an agent of its user's, and both runtimes."""
    bare.edgepress(*BOTH)
    return bare

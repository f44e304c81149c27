"""The steps of an installation, as whoever watches sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from pipeline.reporting.progress import Progress, Stage


@contextmanager
def step(progress: Progress, name: str) -> Iterator[Callable[[str], None]]:
    """Show one step; the function that is given says how it ended."""
    stage = progress.stage(name)
    try:
        yield stage.finish
    except BaseException:
        stage.finish("failed")
        raise


class Steps:
    """Steps of which each begins as the one before ends."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage: Stage | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stage:
            self._stage.finish("failed" if kind else "done")

    def next(self, name: str) -> None:
        """Begin the step ``name``."""
        if self._stage:
            self._stage.finish()
        self._stage = self._progress.stage(name)

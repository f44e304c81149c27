"""How a run tells what it is doing: the seam between ``experiment.py`` and whoever watches."""

from __future__ import annotations

from typing import Protocol

from pipeline.results.record import VariantRecord

BYTES = "bytes"


class Stage(Protocol):
    """One stage under way; it ends with ``finish``."""

    def advance(self, amount: int = 1) -> None:
        """Count ``amount`` more units as done."""

    def update(self, done: int, total: int | None = None) -> None:
        """Set what is done so far, and the total when it has become known or has changed."""

    def finish(self, text: str = "done") -> None:
        """End the stage; ``text`` says how: "done", "from the cache", "failed: …"."""


class Progress(Protocol):
    """What a run reports to. Its methods may be called from several threads."""

    def stage(self, name: str, total: int | None = None, unit: str = "steps") -> Stage:
        """Start a stage of ``total`` units (None: unknown); with the unit "bytes" rate and time left are shown."""

    def variant(self, record: VariantRecord) -> None:
        """Show what is known of one variant by now, in place of what was shown of it before."""

    def device(self, name: str) -> Progress:
        """Return what shows how it goes on one device, where there are several."""


class NoStage:
    """A stage that nobody watches."""

    def advance(self, amount: int = 1) -> None:
        """Do nothing."""

    def update(self, done: int, total: int | None = None) -> None:
        """Do nothing."""

    def finish(self, text: str = "done") -> None:
        """Do nothing."""


class NoProgress:
    """A run that nobody watches: ``--quiet``, and tests."""

    def stage(self, name: str, total: int | None = None, unit: str = "steps") -> NoStage:
        """Return a stage that shows nothing."""
        return NoStage()

    def variant(self, record: VariantRecord) -> None:
        """Do nothing."""

    def device(self, name: str) -> NoProgress:
        """Return one that shows nothing."""
        return self

"""A job in blocks: what one child process does, in which order, and what comes of it."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from device_agent.protocol import (
    Failure,
    JobSpec,
    ProtocolError,
    Scored,
    TimingBlock,
    blob_path,
    from_json,
    job_file_path,
    to_json,
)

Outcome = Union[TimingBlock, Scored, Failure]
_OUTCOMES: dict[str, Any] = {"timing": TimingBlock, "scored": Scored, "failure": Failure}


@dataclass(frozen=True)
class Block:
    """One child process: ``stage`` "timing" or "scoring" of the model at place ``model``; the rest counts from 0."""

    stage: str
    model: int
    process: int = 0
    attempt: int = 0

    @property
    def name(self) -> str:
        """The stem of this block's files."""
        return f"{self.stage}-{self.model}-{self.process}" + (f"-{self.attempt}" if self.attempt else "")


@dataclass(frozen=True)
class Request:
    """All that a child needs to know."""

    home: str
    job_id: str
    spec: JobSpec
    block: Block
    daemon_pid: int

    @property
    def model_path(self) -> str:
        """The model's file."""
        return blob_path(self.home, self.spec.models[self.block.model].sha256)

    @property
    def samples_path(self) -> Path:
        """Where the block's raw samples go."""
        return Path(job_file_path(self.home, self.job_id, self.samples_name))

    @property
    def samples_name(self) -> str:
        """The name of that file."""
        return f"{self.block.name}.npy"


def blocks_in_order(spec: JobSpec) -> list[Block]:
    """Return the blocks of a job: for each process all models in a random order, so that drift and heat hit all alike;
    then each model's score. The same spec gives the same order, also after a restart."""
    shuffled = random.Random(spec.measure.seed)  # noqa: S311 - an order, not a secret
    order = []
    for process in range(spec.measure.processes):
        models = list(range(len(spec.models)))
        shuffled.shuffle(models)
        order += [Block("timing", model, process) for model in models]
    return order + [Block("scoring", model) for model in range(len(spec.models))]


def outcome_to_bytes(outcome: Outcome) -> bytes:
    """Return the content of a block's result file."""
    kind = next(name for name, cls in _OUTCOMES.items() if isinstance(outcome, cls))
    return json.dumps({kind: to_json(outcome)}).encode()


def outcome_from_bytes(content: bytes) -> Outcome:
    """Return what ``outcome_to_bytes`` wrote."""
    for kind, value in json.loads(content).items():
        outcome: Outcome = from_json(_OUTCOMES[kind], value)
        return outcome
    raise ProtocolError("a block's result is empty; expected one of timing, scored, failure")

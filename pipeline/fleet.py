"""Several devices driven side by side: a thread for each, so that one that is down, slow or full fails alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from pipeline.agent_client import AgentClient
from pipeline.devices.handshakes import Handshakes
from pipeline.devices.inventory import Device
from pipeline.devices.transport import open_transport
from pipeline.errors import DeviceInterrupted, EdgepressError
from pipeline.reporting.progress import Progress

# How long those that were interrupted may take to give back their lease; who waits for a dead line is left behind.
GRACE_S = 5.0

T = TypeVar("T")


@dataclass(frozen=True)
class Board:
    """A device, the client of its agent, and where its progress is shown."""

    device: Device
    client: AgentClient
    progress: Progress

    @property
    def name(self) -> str:
        """The device's name."""
        return self.device.name


class Fleet:
    """Devices with the clients of their agents, each connected to at its first call; to be used as a context manager.

    Args:
        devices: each once.
        several: whether each has a part of its own in ``progress``; otherwise there is just one, which has all.
        progress: where all of it is shown.
    """

    def __init__(self, devices: Sequence[Device], several: bool, progress: Progress) -> None:
        handshakes = Handshakes()
        self.several = several
        self.boards = tuple(
            Board(
                device,
                AgentClient(open_transport(device, handshakes), device.name),
                progress.device(device.name) if several else progress,
            )
            for device in devices
        )
        self.interrupted = False
        self._abandoned: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Side by side: each takes a while, and one whose line is dead takes very long.
        left = [board for board in self.boards if board.name not in self._abandoned]
        wait([_started(_close, board) for board in left], GRACE_S)

    def each(
        self, work: Callable[[Board], T], boards: Iterable[Board], timeout_s: float = 0.0
    ) -> dict[str, T | EdgepressError]:
        """Return what ``work`` returns for each of ``boards``, or the error that it raised, by the device's name.

        Ctrl-C ends all that are not done, as ``timeout_s`` does when it is not 0: they come to DeviceInterrupted, and
        what was begun on the device goes on there. ``interrupted`` tells of Ctrl-C.
        """
        begun = [(board, _started(self._telling(work), board)) for board in boards]
        reason = f"it was not done within {timeout_s:g} s, its device_timeout_s"
        try:
            _wait([future for _, future in begun], timeout_s or None)
        except KeyboardInterrupt:
            self.interrupted = True
            reason = "it was interrupted"
        _interrupt(
            [entry for entry in begun if not entry[1].done()], f"{reason}; a job that it was given goes on there"
        )
        return {board.name: self._outcome(board, future, reason) for board, future in begun}

    def _telling(self, work: Callable[[Board], T]) -> Callable[[Board], T]:
        """Return ``work`` with its failure shown; of a single device it is raised in the end, and shown by that."""

        def run(board: Board) -> T:
            try:
                return work(board)
            except EdgepressError as error:
                if self.several:
                    board.progress.stage("failed").finish(str(error))
                raise

        return run

    def _outcome(self, board: Board, future: Future[T | EdgepressError], reason: str) -> T | EdgepressError:
        if future.done():
            return future.result()
        self._abandoned.add(board.name)
        return DeviceInterrupted(f"{board.name}: {reason}, and it does not answer")


def _wait(futures: Iterable[Future[T | EdgepressError]], timeout_s: float | None) -> None:
    """Wait for all, for as long as that; a bug in one ends the waiting and is raised."""
    done, _ = wait(futures, timeout_s, FIRST_EXCEPTION)
    for future in done:
        future.result()


def _interrupt(late: Sequence[tuple[Board, Future[T | EdgepressError]]], reason: str) -> None:
    for board, _ in late:
        # In a thread of its own: even to say that it is over may have to wait for a dead line.
        threading.Thread(target=board.client.interrupt, args=(reason,), daemon=True).start()
    wait([future for _, future in late], GRACE_S)


def _started(work: Callable[[Board], T], board: Board) -> Future[T | EdgepressError]:
    """Begin ``work`` in a daemon thread: one that waits for a dead line must not keep the program from ending."""
    future: Future[T | EdgepressError] = Future()

    def run() -> None:
        try:
            future.set_result(work(board))
        except EdgepressError as error:
            future.set_result(error)
        except BaseException as error:  # noqa: BLE001  whoever waits for the result raises it
            future.set_exception(error)

    threading.Thread(target=run, name=f"device {board.name}", daemon=True).start()
    return future


def _close(board: Board) -> None:
    board.client.close()

"""What techniques tell, kept for tests to look at; for the children that run them."""

from pipeline.compression import NoReport


class KeptReport(NoReport):
    """Keeps notes and what was left as it is."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.left: list[list[str]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def leave(self, layer: str, reason: str, chosen: bool = False) -> None:
        self.left.append([layer, reason])

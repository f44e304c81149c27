"""The two key pairs of an emulated board, made for each user: the one that logs in, and the board's own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Keys:
    """``user`` and ``host`` below ``folder``, private halves with mode 0600, public ones beside them as ``.pub``."""

    folder: Path

    @property
    def user(self) -> Path:
        """The private key that logs in."""
        return self.folder / "user"

    @property
    def public(self) -> str:
        """Both public halves, one a line: the user's, then the board's."""
        return "".join((self.folder / f"{name}.pub").read_text(encoding="ascii") for name in ("user", "host"))

    @property
    def host_key(self) -> str:
        """The public half of the board's key: type and base64."""
        return " ".join((self.folder / "host.pub").read_text(encoding="ascii").split()[:2])


def make_keys(folder: Path) -> Keys:
    """Return the keys in ``folder``, made when they are missing."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("user", "host"):
        if not (folder / f"{name}.pub").is_file():
            _make_pair(folder / name)
    return Keys(folder)


def _make_pair(path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(private)
    # Last: where it is, the other half is too.
    path.with_name(f"{path.name}.pub").write_text(f"{public.decode('ascii')} edgepress-{path.name}\n", encoding="ascii")

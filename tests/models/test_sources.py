"""Sources in order, with tiny idx files, a real web server and a real apt repository, all in temporary folders."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from models.datasets import web
from models.datasets.dataset import Collection, DataFile, DataUnavailable, SourceFailed
from models.datasets.debian import download_package
from models.datasets.sources import fetch

IMAGES = b"\0\0\x08\x03" + struct.pack(">3I", 2, 2, 2) + bytes(range(8))
LABELS = b"\0\0\x08\x01" + struct.pack(">I", 2) + bytes([7, 9])
CONTENT = {"images-idx3-ubyte.gz": IMAGES, "labels-idx1-ubyte.gz": LABELS}
PACKAGE = "dataset-tiny-for-edgepress-tests"

needs_apt = pytest.mark.skipif(
    shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None, reason="apt-get and dpkg-deb are Debian's"
)


def ignore(what: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    """Two tiny files that no source has yet: no folder, a closed port, a package that does not exist."""
    files = tuple(DataFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in CONTENT.items())
    return Collection("tiny", files, PACKAGE, tmp_path / "debian/tiny", f"http://127.0.0.1:{closed_port()}/")


@pytest.fixture(autouse=True)
def private_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt whose only source is the folder that is returned, which is empty, and whose lists are empty."""
    repository = tmp_path / "repository"
    (tmp_path / "lists/partial").mkdir(parents=True)
    repository.mkdir()
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{repository} ./\n")
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n'
        f'Dir::State::Lists "{tmp_path}/lists";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return repository


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The URL of a real web server and the folder it shows."""
    folder = tmp_path / "www"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http_server.server_port}/", folder
        http_server.shutdown()


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def write_files(folder: Path, packed: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in CONTENT.items():
        path = folder / (name if packed else name.removesuffix(".gz"))
        path.write_bytes(gzip.compress(data) if packed else data)


def publish_package(repository: Path, collection: Collection, tmp_path: Path) -> None:
    """Builds a real .deb with the collection's files and puts it into a flat apt repository."""
    root = tmp_path / "deb"
    write_files(root / collection.debian_folder.relative_to("/"))
    (root / "DEBIAN").mkdir()
    control = f"Package: {PACKAGE}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: t\n"
    (root / "DEBIAN/control").write_text(control)
    archive = repository / f"{PACKAGE}_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", str(root), str(archive)], check=True)
    data = archive.read_bytes()
    entry = f"Filename: ./{archive.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    (repository / "Packages").write_text(control + entry)


@pytest.mark.parametrize("packed", [True, False])
def test_named_folder_is_read_packed_or_not(collection: Collection, tmp_path: Path, packed: bool) -> None:
    write_files(tmp_path / "mine", packed)
    fetched = fetch(collection, tmp_path / "mine", tmp_path / "cache", ignore)
    assert fetched.content == CONTENT
    assert fetched.source == f"folder {tmp_path / 'mine'}"


def test_named_folder_with_a_missing_and_a_wrong_file_is_an_error_that_names_both(
    collection: Collection, tmp_path: Path
) -> None:
    write_files(collection.debian_folder)
    wrong = tmp_path / "mine" / "labels-idx1-ubyte.gz"
    wrong.parent.mkdir()
    wrong.write_bytes(gzip.compress(b"another"))
    with pytest.raises(DataUnavailable) as caught:
        fetch(collection, wrong.parent, tmp_path / "cache", ignore)
    message = str(caught.value)
    assert f"{wrong.parent} has no images-idx3-ubyte.gz or images-idx3-ubyte" in message
    assert f"{wrong}: sha256 of the content is {hashlib.sha256(b'another').hexdigest()}" in message
    assert f"expected {collection.files[1].sha256}" in message
    assert not (tmp_path / "cache").exists()


def test_named_folder_that_does_not_exist_is_an_error(collection: Collection, tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match=r"mine is not a folder; expected one that holds images-idx3-ubyte\.gz"):
        fetch(collection, tmp_path / "mine", tmp_path / "cache", ignore)


def test_installed_package_comes_before_the_download(
    collection: Collection, server: tuple[str, Path], tmp_path: Path
) -> None:
    write_files(collection.debian_folder)
    write_files(server[1])
    fetched = fetch(replace(collection, url=server[0]), None, tmp_path / "cache", ignore)
    assert fetched.content == CONTENT
    assert fetched.source == f"installed Debian package {PACKAGE}"


def test_download_comes_next_tells_its_progress_and_fills_the_cache(
    collection: Collection, server: tuple[str, Path], tmp_path: Path
) -> None:
    write_files(server[1])
    told: list[tuple[str, int, int]] = []
    online = replace(collection, url=server[0])
    fetched = fetch(online, None, tmp_path / "cache", lambda *step: told.append(step))
    assert fetched.source == f"download from {server[0]}"
    sizes = {name: (server[1] / name).stat().st_size for name in CONTENT}
    assert told == [(name, size, size) for name, size in sizes.items()]
    again = fetch(collection, None, tmp_path / "cache", ignore)
    assert (again.content, again.source) == (CONTENT, f"cache {tmp_path / 'cache/datasets/tiny'}")
    kept = sorted(path.name for path in (tmp_path / "cache/datasets/tiny").iterdir())
    assert kept == ["images-idx3-ubyte", "labels-idx1-ubyte"]


def test_damaged_cache_file_is_fetched_again_and_the_whole_one_is_not(
    collection: Collection, server: tuple[str, Path], tmp_path: Path
) -> None:
    write_files(server[1])
    online = replace(collection, url=server[0])
    fetch(online, None, tmp_path / "cache", ignore)
    damaged = tmp_path / "cache/datasets/tiny/labels-idx1-ubyte"
    damaged.write_bytes(LABELS[:-1])
    told: list[str] = []
    fetched = fetch(online, None, tmp_path / "cache", lambda what, done, total: told.append(what))
    assert fetched.content == CONTENT
    assert told == ["labels-idx1-ubyte.gz"]
    assert damaged.read_bytes() == LABELS


def test_download_of_other_bytes_is_refused_and_not_kept(
    collection: Collection, server: tuple[str, Path], tmp_path: Path
) -> None:
    write_files(server[1])
    (server[1] / "labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"\0\0"))
    with pytest.raises(DataUnavailable, match=r"labels-idx1-ubyte\.gz: sha256 of the content is .*, expected "):
        fetch(replace(collection, url=server[0]), None, tmp_path / "cache", ignore)
    assert [path.name for path in (tmp_path / "cache/datasets/tiny").iterdir()] == ["images-idx3-ubyte"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (gzip.compress(LABELS, mtime=0)[:-6], "damaged gzip file"),
        (bytes(web.CHUNK_BYTES * 2), "longer than the 10 bytes of labels-idx1-ubyte"),
        (None, "HTTP Error 404"),
    ],
)
def test_bad_download_says_what_is_wrong_with_it(
    collection: Collection, server: tuple[str, Path], tmp_path: Path, body: bytes | None, said: str
) -> None:
    write_files(server[1])
    (server[1] / "labels-idx1-ubyte.gz").unlink()
    if body is not None:
        (server[1] / "labels-idx1-ubyte.gz").write_bytes(body)
    with pytest.raises(DataUnavailable, match=f"labels-idx1-ubyte.gz: {said}"):
        fetch(replace(collection, url=server[0]), None, tmp_path / "cache", ignore)


def test_silent_server_is_given_up_after_the_time_out(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "STALL_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/labels-idx1-ubyte.gz"
        with pytest.raises(SourceFailed, match=r"labels-idx1-ubyte\.gz: (stalled, less than 64 KiB in|.*timed out)"):
            web.download_file(url, collection.files[1], ignore)


def test_connection_cut_halfway_is_told_with_both_sizes(collection: Collection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_half() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 8\r\n\r\nhalf")

        threading.Thread(target=answer_half, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        with pytest.raises(SourceFailed, match=r"labels-idx1-ubyte\.gz: cut off after 4 of 8 bytes"):
            web.download_file(url, collection.files[1], ignore)


@needs_apt
def test_debian_package_is_fetched_with_lists_of_our_own_when_nothing_else_has_the_files(
    collection: Collection, private_apt: Path, tmp_path: Path
) -> None:
    publish_package(private_apt, collection, tmp_path)
    told: list[str] = []
    fetched = fetch(collection, None, tmp_path / "cache", lambda what, done, total: told.append(what))
    assert fetched.content == CONTENT
    assert fetched.source == f"Debian package {PACKAGE}, fetched without root"
    assert "Debian's package lists" in told
    assert sorted(path.name for path in (tmp_path / "lists").iterdir()) == ["partial"]


@needs_apt
def test_package_that_apt_does_not_know_is_told_in_apt_s_words(private_apt: Path) -> None:
    (private_apt / "Packages").write_text("")
    with (
        pytest.raises(SourceFailed, match=f"apt-get: Unable to locate package {PACKAGE}"),
        download_package(PACKAGE, ignore),
    ):
        pass


def test_machine_without_apt_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceFailed, match="this machine has no apt-get"), download_package(PACKAGE, ignore):
        pass


def test_when_all_fail_every_source_is_listed_with_its_reason(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    cache = tmp_path / "cache/datasets/tiny"
    cache.mkdir(parents=True)
    (cache / "labels-idx1-ubyte").write_bytes(b"old")
    with pytest.raises(DataUnavailable) as caught:
        fetch(collection, None, tmp_path / "cache", ignore)
    first, *tried = str(caught.value).splitlines()
    assert first == ("tiny: no source had it; name a folder that holds images-idx3-ubyte.gz, labels-idx1-ubyte.gz")
    assert [line.split(":")[0].strip() for line in tried[:2]] == ["cache", f"installed Debian package {PACKAGE}"]
    assert f"there is no folder {collection.debian_folder}" in tried[1]
    assert tried[2].startswith(f"  download from {collection.url}: images-idx3-ubyte.gz: ")
    assert tried[2].endswith("Connection refused")
    assert tried[3].endswith("fetched without root: this machine has no apt-get")


def test_cache_that_cannot_be_written_is_an_os_error_and_leaves_nothing_half_written(
    collection: Collection, tmp_path: Path
) -> None:
    write_files(collection.debian_folder)
    kept = tmp_path / "cache/datasets/tiny"
    (kept / "images-idx3-ubyte").mkdir(parents=True)
    with pytest.raises(OSError, match="images-idx3-ubyte"):
        fetch(collection, None, tmp_path / "cache", ignore)
    assert [path.name for path in kept.iterdir()] == ["images-idx3-ubyte"]

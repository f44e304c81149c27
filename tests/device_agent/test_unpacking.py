"""What is unpacked, and what is not."""

import gzip
import io
import tarfile

import pytest
from small_bundles import write_part

from device_agent.errors import AgentError
from device_agent.installing.unpacking import unpack


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "out"
    made.mkdir()
    return made


def packed(path, *members: tarfile.TarInfo):
    """Write a bundle of members that have no content."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for member in members:
            tar.addfile(member)
    path.write_bytes(gzip.compress(content.getvalue()))
    return path


def test_files_are_unpacked_with_their_content_and_may_be_run_only_where_that_is_said(tmp_path, folder):
    bundle = write_part(tmp_path, {"a/b.txt": b"x" * 100_000, "bin/run": b"#!"}, programs=("bin/run",))
    assert unpack(bundle.path, folder)[:16] == bundle.part.id
    assert (folder / "a/b.txt").read_bytes() == b"x" * 100_000
    assert (folder / "a/b.txt").stat().st_mode & 0o777 == 0o644
    assert (folder / "bin/run").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a//x", "./x", "a/.", "a\\x", "a\nx", ""])
def test_a_name_that_could_lead_out_of_the_folder_is_refused(tmp_path, folder, name):
    with pytest.raises(AgentError, match=r"no plain relative path|no bundle"):
        unpack(packed(tmp_path / "b", tarfile.TarInfo(name)), folder)
    assert [path for path in tmp_path.rglob("x") if path.is_file()] == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_anything_but_a_regular_file_is_refused(tmp_path, folder, kind):
    member = tarfile.TarInfo("link")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(AgentError, match="'link', which is no regular file"):
        unpack(packed(tmp_path / "b", member), folder)
    assert list(folder.iterdir()) == []


def test_a_file_that_is_there_twice_is_not_written_over(tmp_path, folder):
    with pytest.raises(FileExistsError):
        unpack(packed(tmp_path / "b", tarfile.TarInfo("a"), tarfile.TarInfo("a")), folder)


@pytest.mark.parametrize("damage", [lambda content: content[:-20], lambda content: b"PK" + content, lambda _: b""])
def test_a_damaged_bundle_is_refused(tmp_path, folder, damage):
    bundle = write_part(tmp_path, {"a": bytes(range(256)) * 100})
    bundle.path.write_bytes(damage(bundle.path.read_bytes()))
    with pytest.raises(AgentError, match="is no bundle"):
        unpack(bundle.path, folder)

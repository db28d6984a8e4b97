"""Folders on a local disk, in memory and on S3: whole files or none, and names that stay inside."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import re
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import fsspec
import pytest

from samtok_data.errors import SetupError
from samtok_data.storage import TEMPORARY, Folder, is_contained

OUTSIDE = ["", "/", "/etc/passwd", "..", "../x", "a/../x", "a/..", "..\\x", "a\\..\\x", "\\x", ".", "./", "./.", "//",
           "c:\\x", "s3://bucket/x", "file:x"]  # fmt: skip
INSIDE = ["x", "a/b/c.tar", ".samtok/run.json", "a..b", "...", "a/b:c", "./x", "x y", "ä.jpg"]


def files_below(path: Path) -> dict[str, bytes]:
    """Every file, hidden ones included."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


# On every file system.


def test_what_is_written_is_read(folder: Folder) -> None:
    assert not folder.exists()
    folder.write("a.tar", b"12345")
    folder.write("deep/er/b.json", b"")
    assert folder.exists()
    assert folder.read("a.tar") == b"12345"
    assert (folder.size("a.tar"), folder.size("deep/er/b.json")) == (5, 0)
    assert folder.read("deep/er/b.json") == b""
    assert (folder / "deep").read("er/b.json") == b""
    with folder.open("a.tar") as file:
        assert (file.read(2), file.read()) == (b"12", b"345")


def test_a_file_is_written_over_an_older_one(folder: Folder) -> None:
    folder.write("a", b"older and longer")
    folder.write("a", b"new")
    assert (folder.read("a"), folder.sizes()) == (b"new", {"a": 3})


def test_files_of_some_megabytes_are_whole(folder: Folder) -> None:
    data = bytes(range(256)) * 4096 * 7
    folder.write("large", data)
    assert folder.read("large") == data


def test_sizes_and_names_are_those_of_the_files_directly_in_the_folder(folder: Folder) -> None:
    for name, data in {"b.tar": b"12", "a.tar": b"1", "c.json": b"", "sub/d.tar": b"123", ".hidden": b"1"}.items():
        folder.write(name, data)
    assert folder.sizes() == {"a.tar": 1, "b.tar": 2, "c.json": 0, ".hidden": 1}
    assert folder.names(".tar") == ["a.tar", "b.tar"]
    assert folder.names() == [".hidden", "a.tar", "b.tar", "c.json"]
    assert (folder / "sub").names() == ["d.tar"]


@pytest.mark.parametrize("count", [0, 1, 2, 12])
def test_read_all_gives_the_files_by_name(folder: Folder, count: int) -> None:
    folder.write("units/other.txt", b"other")
    for number in reversed(range(count)):
        folder.write(f"units/{number:06d}.json", str(number).encode())
    assert (folder / "units").read_all(".json") == [str(number).encode() for number in range(count)]


def test_a_folder_that_is_not_there_is_empty(folder: Folder) -> None:
    assert (folder.sizes(), folder.names(), folder.read_all(".json"), list(folder.walk())) == ({}, [], [], [])
    assert (folder.exists(), folder.exists("a"), folder.exists("a/b")) == (False, False, False)
    folder.remove("a")
    for read in (folder.read, folder.size):
        with pytest.raises(FileNotFoundError):
            read("a")


def test_walk_finds_every_file_below(folder: Folder) -> None:
    written = {"a", "b/c", "b/d/e", ".samtok/f"}
    for name in written:
        folder.write(name, b"x")
    assert sorted(name for name in folder.walk() if not name.startswith(TEMPORARY)) == sorted(written)
    assert sorted((folder / "b").walk()) == ["c", "d/e"]


def test_remove_takes_a_file_or_a_whole_folder(folder: Folder) -> None:
    for name in ("a", "ab", "b/c", "b/d/e", "bc"):
        folder.write(name, b"x")
    folder.remove("a")
    folder.remove("b")
    folder.remove("nothing")
    assert folder.names() == ["ab", "bc"]
    assert [folder.exists(name) for name in ("a", "b", "b/c", "b/d/e", "ab")] == [False] * 4 + [True]


def test_remove_file_takes_a_file_or_nothing(folder: Folder) -> None:
    folder.write("a/b", b"x")
    folder.write("a/c", b"x")
    for name in ("a/b", "a/b", "nothing", "no/thing"):
        folder.remove_file(name)
    assert list(folder.walk()) == ["a/c"]


def test_empty_files_are_read_like_others(folder: Folder) -> None:
    for name, data in (("a", b""), ("b", b"1"), ("c", b"")):
        folder.write(name, data)
    assert folder.read_all("") == [b"", b"1", b""]


def test_a_folder_survives_pickling(folder: Folder) -> None:
    folder.write("a", b"1")
    copy = pickle.loads(pickle.dumps(folder))
    assert isinstance(copy, Folder)
    assert (copy.path, copy.is_local, copy.read("a")) == (folder.path, folder.is_local, b"1")
    copy.write("b", b"2")
    assert folder.names() == ["a", "b"]


def test_what_others_write_and_remove_is_seen_at_once(folder: Folder) -> None:
    """A worker writes to the folder that the driver has listed before: no listing may be remembered."""
    folder.write("a", b"1")
    assert (folder.sizes(), folder.exists("b"), sorted(folder.walk())) == ({"a": 1}, False, ["a"])
    protocol = folder.fs.protocol if isinstance(folder.fs.protocol, str) else folder.fs.protocol[0]
    others: Any = fsspec.filesystem(protocol, skip_instance_cache=True)
    others.pipe_file(folder.at("b"), b"12")
    assert (folder.sizes(), folder.exists("b"), sorted(folder.walk())) == ({"a": 1, "b": 2}, True, ["a", "b"])
    others.pipe_file(folder.at("b"), b"123")
    assert (folder.size("b"), folder.sizes()["b"], folder.read_all("b")) == (3, 3, [b"123"])
    others.rm_file(folder.at("b"))
    assert (folder.sizes(), folder.exists("b"), sorted(folder.walk())) == ({"a": 1}, False, ["a"])


def test_a_file_that_goes_while_all_are_read_is_an_error(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write("a", b"1")
    monkeypatch.setattr(folder, "sizes", lambda: {"a": 1, "gone": 1})
    with pytest.raises(FileNotFoundError):
        folder.read_all("")


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leaves_the_folder_is_refused(folder: Folder, name: str) -> None:
    assert not is_contained(name)
    message = "^" + re.escape(f"expected a relative name inside the folder, got {name!r}") + "$"
    calls = [folder.at, folder.read, folder.size, folder.open, folder.__truediv__, lambda name: folder.write(name, b"")]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call(name)
    if name:
        with pytest.raises(ValueError, match=message):
            folder.exists(name)
    folder.write("kept", b"1")
    with pytest.raises(ValueError, match=message):
        (folder / "x").remove(name)
    for remove in (folder.remove, folder.remove_file):
        with pytest.raises(ValueError, match=message):
            remove(name)
    assert folder.names() == ["kept"]


@pytest.mark.parametrize("name", INSIDE)
def test_other_names_are_not_refused(name: str) -> None:
    assert is_contained(name)
    assert Folder("memory://root").at(name) == f"/root/{name}"


# Addresses.


@pytest.mark.parametrize("address", ["nosuch://x", "nosuch2://bucket/x"])
def test_an_unknown_address_is_a_setup_error(address: str) -> None:
    with pytest.raises(SetupError, match=f"^{address}: no file system for this address: "):
        Folder(address)


def test_an_address_whose_package_is_missing_is_a_setup_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(SetupError, match=r"^s3://bucket/x: no file system for this address: Install s3fs"):
        Folder("s3://bucket/x")


def test_a_folder_shows_the_address_that_was_given(tmp_path: Path) -> None:
    assert str(Folder("memory://a") / "b" / "c/d") == "memory://a/b/c/d"
    assert repr(Folder("memory://a/")) == "Folder('memory://a/')"
    assert str(Folder(tmp_path) / "x") == f"{tmp_path}/x"
    assert Folder(f"file://{tmp_path}").is_local


def test_a_relative_folder_stays_the_same_in_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    folder = Folder("out")
    packed = pickle.dumps(folder)
    monkeypatch.chdir("elsewhere")
    pickle.loads(packed).write("a", b"1")
    folder.write("b", b"2")
    assert files_below(tmp_path) == {"out/a": b"1", "out/b": b"2"}


@pytest.mark.parametrize("name", ["run[1]", "run*", "run?", "{a,b}", "a b", "ä"])
def test_an_address_is_no_pattern(tmp_path: Path, name: str) -> None:
    folder = Folder(tmp_path / name)
    (tmp_path / "run1").mkdir()
    folder.write("a.json", b"1")
    folder.write("b.json", b"2")
    assert (folder.names(), folder.read_all(".json"), sorted(folder.walk())) == (
        ["a.json", "b.json"],
        [b"1", b"2"],
        ["a.json", "b.json"],
    )
    folder.remove("a.json")
    assert files_below(tmp_path) == {f"{name}/b.json": b"2"}


# Faults of a local disk.


def _full(*_args: object, **_kwargs: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class _FullFile:
    """A file whose device is full after a few bytes."""

    def __init__(self, handle: int, _mode: str) -> None:
        self._handle = handle

    def __enter__(self) -> _FullFile:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._handle)

    def write(self, data: bytes) -> None:
        os.write(self._handle, data[:3])
        _full()


@pytest.mark.parametrize("older", [None, b"older"], ids=["new", "over-an-older-one"])
@pytest.mark.parametrize("point", ["write", "fsync", "chmod", "replace", "mkstemp", "mkdir"])
def test_a_full_disk_leaves_the_older_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, older: bytes | None
) -> None:
    folder = Folder(tmp_path / "out")
    if older is not None:
        folder.write("sub/a.tar", older)
    before = files_below(tmp_path)
    match point:
        case "write":
            monkeypatch.setattr(os, "fdopen", _FullFile)
        case "mkstemp":
            monkeypatch.setattr(tempfile, "mkstemp", _full)
        case "mkdir":
            monkeypatch.setattr(Path, "mkdir", _full)
        case _:
            monkeypatch.setattr(os, point, _full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        folder.write("sub/a.tar", b"a new file")
    assert caught.value.errno == errno.ENOSPC
    assert files_below(tmp_path) == before == ({} if older is None else {"out/sub/a.tar": older})
    monkeypatch.undo()
    folder.write("sub/a.tar", b"a new file")
    assert files_below(tmp_path) == {"out/sub/a.tar": b"a new file"}


def test_an_interrupt_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Folder(tmp_path).write("a", b"1")
    assert files_below(tmp_path) == {}


def test_the_bytes_are_on_the_disk_before_they_have_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, real=real, name=name: (steps.append(name), real(*args))[1])
    Folder(tmp_path).write("a", b"1")
    assert steps == ["fsync", "replace"]


def _write_and_die(path: str) -> None:
    os.replace = lambda *_args: os._exit(9)  # what a kill between the write and the rename is
    Folder(path).write("sub/a.tar", b"a new file")


def test_a_killed_writer_leaves_its_bytes_only_in_the_dot_folder(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    folder.write("sub/a.tar", b"older")
    process = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(folder.address,))
    process.start()
    process.join()
    assert process.exitcode == 9
    left = {name: data for name, data in files_below(tmp_path / "out").items() if name != "sub/a.tar"}
    assert [name.split("/")[0] for name in left] == [TEMPORARY]
    assert folder.read("sub/a.tar") == b"older"
    folder.remove(TEMPORARY)


def test_a_file_in_the_way_of_a_folder_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    with pytest.raises(OSError, match="out"):
        Folder(tmp_path / "out").write("a", b"1")
    assert files_below(tmp_path) == {"out": b"a file"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_an_os_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            Folder(tmp_path / "out").write("a", b"1")
    finally:
        tmp_path.chmod(0o700)
    assert files_below(tmp_path) == {}


def test_a_refused_permission_passes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        Folder(tmp_path).write("a", b"1")
    assert files_below(tmp_path) == {}


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_a_file_has_the_mode_of_the_umask(tmp_path: Path, umask: int) -> None:
    program = f"""
        import os
        os.umask({umask})
        from samtok_data.storage import Folder
        Folder({str(tmp_path)!r}).write("a", b"1")
        assert os.umask(0) == {umask}
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


# Faults of an object store.


@pytest.fixture
def s3_folder(s3_endpoint: str, tmp_path: Path) -> Folder:
    assert s3_endpoint.startswith("http://127.0.0.1:")
    return Folder(f"s3://samtok-tests/{tmp_path.name}")


@pytest.mark.parametrize("older", [None, b"older"], ids=["new", "over-an-older-one"])
def test_a_failing_put_leaves_the_older_object_and_no_other(
    s3_folder: Folder, monkeypatch: pytest.MonkeyPatch, older: bytes | None
) -> None:
    if older is not None:
        s3_folder.write("a", older)

    async def fail(*_args: object, **_kwargs: object) -> None:
        raise ConnectionResetError("the line is lost")

    monkeypatch.setattr(s3_folder.fs, "_call_s3", fail)
    with pytest.raises(OSError, match="the line is lost"):
        s3_folder.write("a", b"a new object")
    monkeypatch.undo()
    assert s3_folder.read_all("a") == ([] if older is None else [older])


def test_an_upload_that_breaks_off_between_its_parts_leaves_no_object(
    s3_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = s3_folder.fs._call_s3, []

    async def fail_late(method: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(method)
        if kwargs.get("PartNumber") == 2:
            raise ConnectionResetError("the line is lost")
        return await real(method, *args, **kwargs)

    monkeypatch.setattr(s3_folder.fs, "_call_s3", fail_late)
    with pytest.raises(OSError, match="the line is lost"):
        s3_folder.write("a", bytes(101 * 2**20))
    monkeypatch.undo()
    assert calls.count("upload_part") == 3
    assert calls[-1] == "abort_multipart_upload"
    assert s3_folder.names() == []


def test_errors_of_the_store_itself_are_os_errors(s3_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore's are not: NoCredentialsError and EndpointConnectionError derive from Exception."""
    from botocore.exceptions import NoCredentialsError

    async def fail(*_args: object, **_kwargs: object) -> None:
        raise NoCredentialsError

    monkeypatch.setattr(s3_folder.fs, "_call_s3", fail)
    calls = [s3_folder.exists, s3_folder.sizes, lambda: s3_folder.read("a"), lambda: s3_folder.write("a", b"")]
    for call in calls:
        with pytest.raises(OSError, match="Unable to locate credentials") as caught:
            call()
        assert isinstance(caught.value.__cause__, NoCredentialsError)


def test_a_bucket_that_is_not_there_is_an_os_error(s3_endpoint: str) -> None:
    assert s3_endpoint
    with pytest.raises(OSError, match="bucket does not exist"):
        Folder("s3://no-such-bucket/out").write("a", b"1")

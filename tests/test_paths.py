"""The path that a log is opened at: what names a directory, and what a refusal leaves behind."""

import os
from pathlib import Path

import pytest

import pylog

LONG = "x" * 300


class Named:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path

    def __repr__(self):
        return f"Named({self.path!r})"


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """The working directory; whatever a test did, nothing is in it in the end."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["", b"", Named(""), Named(b""), "a\0b", b"a\0b"], ids=repr)
@pytest.mark.parametrize("mode", ["a", "r"])
def test_path_that_names_nothing_is_refused(empty, path, mode):
    with pytest.raises(pylog.ConfigurationError, match="names no directory") as caught:
        pylog.Log(path, mode=mode)

    assert caught.value.option == "path"


@pytest.mark.parametrize("path", [None, 5, 1.5, ["log"], Named(5)],
                         ids=lambda path: type(path).__name__)
def test_what_is_no_path_is_refused(empty, path):
    with pytest.raises(TypeError, match="str"):
        pylog.Log(path)


@pytest.mark.parametrize("path", [
    LONG, LONG.encode(), f"a/b/{LONG}", f"{LONG}/a", "/".join(["y" * 200] * 5),
    "/".join(["z" * 200] * 30),
], ids=lambda path: f"{len(path)}")
def test_path_that_is_too_long_is_refused_and_nothing_made(empty, path):
    for mode in "ar":
        with pytest.raises(pylog.PylogError) as caught:
            pylog.Log(path, mode=mode)
        assert not isinstance(caught.value, pylog.CorruptRecordError)


@pytest.mark.parametrize("options", [
    {"segment_bytes": 1}, {"durability": "disk"}, {"mode": "w"}, {"compression": "rar"},
    {"compression": "zstd"}, {"flush_interval_ms": 0}, {"lock_timeout_ms": 1.5},
], ids=repr)
def test_refused_option_leaves_no_directory(empty, options):
    with pytest.raises((pylog.PylogError, TypeError)):
        pylog.Log("a/b/log", **options)


def test_refused_file_system_leaves_no_directory():
    place = Path("/dev/shm/pylog-test-of-paths")
    if not os.access(place.parent, os.W_OK):
        pytest.skip("there is no /dev/shm to write")

    with pytest.raises(pylog.UnsupportedFilesystemError):
        pylog.Log(place / "a" / "log", durability="fsync")

    assert not place.exists()


def test_directory_that_was_there_stays_after_a_refusal(tmp_path):
    for options in ({"segment_bytes": 1}, {"durability": "disk"}):
        with pytest.raises(pylog.ConfigurationError):
            pylog.Log(tmp_path, **options)

    assert tmp_path.is_dir()


def test_check_takes_the_paths_that_a_log_does(log_path):
    pylog.Log(log_path).close()

    for path in (str(log_path), os.fsencode(log_path), log_path):
        assert pylog.check(path).ok


@pytest.mark.parametrize("as_path", [str, os.fsencode, Path, lambda p: Named(str(p)),
                                     lambda p: Named(os.fsencode(p))])
def test_path_may_be_str_bytes_or_path_like(log_path, as_path):
    with pylog.Log(as_path(log_path)) as log:
        log.append(b"here")
        assert log.path == log_path
    with pylog.Log(as_path(log_path), mode="r") as log:
        assert log.get(0).value == b"here"


def test_path_that_is_no_utf8_is_taken(tmp_path):
    with pylog.Log(os.fsencode(tmp_path) + b"/\xff") as log:
        log.append(b"here")

    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff"]

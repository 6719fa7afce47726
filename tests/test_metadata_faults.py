"""What befalls the store: SIGKILL, damage, foreign files, a full disk, and how it comes back."""

import contextlib
import errno
import os
import random
import resource
import shutil
import signal
import sqlite3
import time

import pytest
from children import in_child
from nobody import NOBODY, let_nobody_come

import pylog
from pylog import metadata_file as store
from pylog.metadata import Metadata

KILLS = 60
KILLS_INSIDE_LEAST = 40
FLIPS = 150


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


@pytest.fixture(scope="module")
def closed_store(tmp_path_factory):
    """A store that nobody has open, not to be changed, and what is in it."""
    path = tmp_path_factory.mktemp("store") / "data"
    with Metadata(path) as metadata:
        for number in range(40):
            metadata.create_topic(f"topic-{number}", number + 1, {"retention.ms": number})
        return path, metadata.topics()


@pytest.fixture
def closed(closed_store, data):
    """A copy to be damaged."""
    return shutil.copytree(closed_store[0], data)


# ---- SIGKILL -------------------------------------------------------------------------------------

@pytest.mark.slow
def test_kill_inside_a_change_loses_nothing_and_locks_nobody_out(data, rng):
    """What was acknowledged is there; the change that was cut off is there whole or not at all."""
    Metadata(data).close()
    model, inside, waits = {}, 0, []
    for number in range(KILLS):
        watcher = Metadata(data) if number % 2 else None    # the last one out, or not
        acknowledged, begun = killed_writer(data, rng, f"r{number}")
        killed_at = time.perf_counter()
        # No time at all: the locks of the dead are free when it is waited for.
        with Metadata(data, lock_timeout_ms=0) as metadata:
            metadata.create_topic(f"after-{number}")
            waits.append(time.perf_counter() - killed_at)
            metadata.delete_topic(f"after-{number}")
            found = shape(metadata.topics())
        for change in acknowledged:
            apply(model, change)
        allowed = [dict(model)]
        if begun:
            inside += 1
            apply(model, begun)
            allowed.append(model)
        assert found in allowed, (number, acknowledged, begun)
        model = dict(found)
        if watcher:
            assert shape(watcher.topics()) == found
            watcher.close()
    waits.sort()
    print(f"{KILLS} kills, {inside} inside a change; usable after {waits[len(waits) // 2]:.4f} s "
          f"(median), {waits[-1]:.4f} s (most)")
    assert inside >= KILLS_INSIDE_LEAST


def killed_writer(data, rng, prefix):
    """A process that changes the store until it is killed: (changes acknowledged, one begun)."""
    source, target = os.pipe()
    seed, delay = rng.random(), rng.uniform(0, 0.02)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(source)
            write_until_killed(data, random.Random(seed), prefix, target)
        finally:
            os._exit(1)
    os.close(target)
    with os.fdopen(source) as pipe:
        assert pipe.readline() == "ready\n"
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        lines = [line.split() for line in pipe.read().splitlines()]
    done = [words[1:] for words in lines if words[0] == "done"]
    return done, lines[-1][1:] if lines and lines[-1][0] == "begin" else None


def write_until_killed(data, rng, prefix, target):
    """Tells each change before it begins and after it is done."""
    metadata = Metadata(data)
    os.write(target, b"ready\n")
    mine = {}
    for number in range(1_000_000):
        verb = rng.choice(["create", "delete", "add", "alter"]) if mine else "create"
        name = f"{prefix}-{number}" if verb == "create" else rng.choice(sorted(mine))
        value = mine[name] + rng.randint(1, 9) if verb == "add" else number
        os.write(target, f"begin {verb} {name} {value}\n".encode())
        if verb == "create":
            mine[name] = metadata.create_topic(name).partitions
        elif verb == "delete":
            metadata.delete_topic(name)
            del mine[name]
        elif verb == "add":
            mine[name] = metadata.add_partitions(name, value).partitions
        else:
            metadata.alter_configs(name, {"retention.ms": value})
        os.write(target, f"done {verb} {name} {value}\n".encode())


def apply(model, change):
    """model: name of a topic -> (partitions, its retention.ms)."""
    verb, name, value = change
    if verb == "create":
        model[name] = (1, None)
    elif verb == "delete":
        del model[name]
    else:
        partitions, retention = model[name]
        model[name] = (int(value), retention) if verb == "add" else (partitions, value)


def shape(topics):
    return {entry.name: (entry.partitions, entry.configs.get("retention.ms"))
            for entry in topics.values()}


@pytest.mark.slow
def test_kill_while_the_store_is_made_leaves_one_that_opens(data, rng):
    for number in range(20):
        path = data / str(number)
        plant_logs(path, "orders", 2)
        pid = os.fork()
        if pid == 0:
            try:
                Metadata(path)
                for _ in range(1000):
                    Metadata.rebuild(path).close()
            finally:
                os._exit(1)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

        with Metadata(path, lock_timeout_ms=0) as metadata:
            assert shape(metadata.topics()) == {"orders": (2, "-1")}


# ---- damage --------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 1, 99])
def test_store_cut_short_is_corrupt(closed, size):
    os.truncate(closed / "metadata.db", size)

    with pytest.raises(pylog.CorruptMetadataError, match="rebuild") as caught:
        Metadata(closed)
    assert caught.value.path == str(closed / "metadata.db")


@pytest.mark.parametrize("size", [100, 4096, 5000, 8192])
def test_store_cut_at_a_page_is_corrupt_as_well(closed, size):
    os.truncate(closed / "metadata.db", size)

    with pytest.raises(pylog.CorruptMetadataError):
        Metadata(closed)


def test_flipped_bits_are_found_or_touch_nothing(closed_store, data, rng):
    path, expected = closed_store
    content = (path / "metadata.db").read_bytes()
    data.mkdir(mode=0o700)
    kinds = []
    for _ in range(FLIPS):
        damaged = bytearray(content)
        # The first page has hardly a byte that matters; most should strike where there is data.
        position = rng.randrange(len(content)) if rng.random() < 0.7 else rng.randrange(200)
        damaged[position] ^= 1 << rng.randrange(8)
        for name in os.listdir(data):
            (data / name).unlink()
        (data / "metadata.db").write_bytes(damaged)
        try:
            with Metadata(data) as metadata:
                assert metadata.topics() == expected, position
                kinds.append("harmless")
        except (pylog.MetadataError, pylog.UnsupportedFormatError) as error:
            kinds.append(type(error).__name__)

    assert "CorruptMetadataError" in kinds


@pytest.mark.parametrize("statement", [
    "UPDATE topics SET partitions = 99 WHERE name = 'topic-7'",
    "UPDATE topics SET name = 'topic-x' WHERE name = 'topic-7'",
    "UPDATE topics SET configs = '{}' WHERE name = 'topic-7'",
    "UPDATE topics SET configs = '{' WHERE name = 'topic-7'",
    "UPDATE topics SET configs = '[1]' WHERE name = 'topic-7'",
    "UPDATE topics SET topic_id = 'x' WHERE name = 'topic-7'",
    "UPDATE topics SET partitions = 'x' WHERE name = 'topic-7'",
    "UPDATE topics SET configs = x'ff' WHERE name = 'topic-7'",
    "UPDATE topics SET configs = CAST(x'ff' AS TEXT) WHERE name = 'topic-7'",
    "DELETE FROM topics WHERE name = 'topic-7'",
    "DELETE FROM topics",
    "DELETE FROM store",
    "UPDATE store SET sequence = sequence + 1",
    "UPDATE store SET digest = 'x'",
    "UPDATE store SET sequence = 'x'",
    "DROP TABLE topics",
    "DROP TABLE store",
])
def test_rows_that_are_not_the_ones_written_are_corrupt(closed, statement):
    tamper(closed, statement)

    with pytest.raises(pylog.CorruptMetadataError, match=r"damaged.*rebuild"):
        Metadata(closed)


def test_schema_that_is_not_even_text_is_corrupt(closed):
    """SQLite quotes it, and Python cannot decode the quotation."""
    path = closed / "metadata.db"
    path.write_bytes(path.read_bytes().replace(b"WITHOUT ROWID", b"WITHOUT ROWI\xc4"))

    with pytest.raises(pylog.CorruptMetadataError):
        Metadata(closed)


def test_damage_while_it_is_open_is_told_too(closed):
    with Metadata(closed) as metadata:
        tamper(closed, "UPDATE topics SET partitions = 99 WHERE name = 'topic-7'")
        with pytest.raises(pylog.CorruptMetadataError):
            metadata.topics()
        tamper(closed, "DROP TABLE store")
        for call in (lambda: metadata.sequence, lambda: metadata.create_topic("new")):
            with pytest.raises(pylog.CorruptMetadataError):
                call()


@pytest.mark.parametrize("statement", [
    "PRAGMA application_id = 7", "PRAGMA application_id = 0",
])
def test_database_of_somebody_else_is_refused_and_untouched(closed, statement):
    tamper(closed, statement)
    before = (closed / "metadata.db").read_bytes()

    with pytest.raises(pylog.UnsupportedFormatError, match="no metadata store"):
        Metadata(closed)
    assert (closed / "metadata.db").read_bytes() == before


@pytest.mark.parametrize("content", [b"PK\3\4" * 50, b"SQLite format 2\0" * 50, bytes(8192)])
def test_file_of_another_kind_is_refused_and_untouched(data, content):
    data.mkdir()
    (data / "metadata.db").write_bytes(content)

    with pytest.raises(pylog.UnsupportedFormatError, match="no metadata store"):
        Metadata(data)
    assert (data / "metadata.db").read_bytes() == content


def test_newer_store_is_refused_with_both_versions(closed):
    tamper(closed, f"PRAGMA user_version = {store.SCHEMA_VERSION + 1}")

    with pytest.raises(pylog.UnsupportedFormatError, match=r"has version 2.*reads 1") as caught:
        Metadata(closed)
    assert (caught.value.found, caught.value.supported) == (2, 1)


def test_path_that_is_no_directory_is_refused(data):
    data.write_bytes(b"")
    with pytest.raises(pylog.MetadataError, match="choose another path") as caught:
        Metadata(data)
    assert caught.value.errno == errno.EEXIST

    with pytest.raises(pylog.MetadataError):
        Metadata(data / "below")


def test_directory_in_the_place_of_the_store_is_refused(data):
    (data / "metadata.db").mkdir(parents=True)

    with pytest.raises(pylog.MetadataError, match="look at its owner and mode"):
        Metadata(data)


def test_store_that_goes_away_is_missed(closed):
    with Metadata(closed) as metadata:
        (closed / "metadata.db").unlink()
        for call in (metadata.topics, lambda: metadata.create_topic("a")):
            with pytest.raises(pylog.MetadataError, match="open the directory again"):
                call()


def tamper(directory, statement):
    """Changes the store behind its back."""
    with contextlib.closing(sqlite3.connect(directory / "metadata.db")) as connection:
        connection.execute(statement)
        connection.commit()


# ---- a disk that refuses -------------------------------------------------------------------------

def test_directory_that_may_not_be_written_is_refused(closed, data):
    let_nobody_come(closed)

    def as_nobody(path):
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        return Metadata(path)

    for path in (closed, closed / "new"):
        denied = in_child(lambda path=path: as_nobody(path))
        assert type(denied) is pylog.MetadataError, denied
        assert denied.errno == errno.EACCES
    (closed / "metadata.db").chmod(0o644)
    (closed / "metadata.lock").chmod(0o644)

    def change_as_nobody():
        with as_nobody(closed) as metadata:
            metadata.create_topic("a")

    assert type(in_child(change_as_nobody)) is pylog.MetadataError
    (closed / "metadata.db").unlink()
    assert type(in_child(lambda: as_nobody(closed))) is pylog.MetadataError


def test_full_disk_refuses_a_change_whole_and_takes_it_later(closed):
    def fill():
        """As on a full disk, the files of this process grow no more."""
        metadata = Metadata(closed)
        before, sequence = metadata.topics(), metadata.sequence
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        errors = []
        for limit in (0, 4096, 40_000, 60_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
            try:
                for number in range(1000):
                    metadata.create_topic(f"more-{number}")
            except pylog.PylogError as error:
                errors.append(type(error).__name__)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            made = {name for name in metadata.topics() if name.startswith("more-")}
            assert {name: entry for name, entry in metadata.topics().items()
                    if name not in made} == before
            assert metadata.sequence == sequence + len(made)
            for name in made:
                metadata.delete_topic(name)
            sequence = metadata.sequence
        metadata.create_topic("later")
        return errors

    errors = in_child(fill)

    assert isinstance(errors, list), errors
    assert len(errors) == 4
    assert set(errors) <= {"DiskFullError", "MetadataError"}
    with Metadata(closed) as metadata:
        assert len(metadata.topics()) == 41


def test_disk_that_is_full_of_files_is_a_full_disk(data, monkeypatch):
    def link(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    Metadata(data).close()
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", link)
        with pytest.raises(pylog.DiskFullError, match="free some space"):
            Metadata.rebuild(data)

    Metadata(data).close()


def test_store_cannot_be_made_on_a_full_disk_and_can_later(data):
    data.mkdir()

    def make():
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, most))
        return Metadata(data)

    error = in_child(make)

    assert isinstance(error, pylog.MetadataError | pylog.DiskFullError), error
    assert not (data / "metadata.db").exists()
    Metadata(data).close()
    assert not (data / "metadata.db.new").exists()


# ---- made from the directories -------------------------------------------------------------------

def plant_logs(data, name, count, **options):
    for partition in range(count):
        with pylog.Log(data / f"{name}-{partition}", **options) as log:
            log.append(b"value")


def test_missing_store_is_made_from_the_logs(data, caplog):
    plant_logs(data, "orders", 3)
    plant_logs(data, "eu-orders", 1, segment_bytes=65536, timestamp_type="append")
    (data / "orders-7").mkdir()         # no log
    (data / "other").mkdir()
    (data / "file-0").write_bytes(b"")
    pylog.Log(data / "gone-0.0123456789abcdef0123456789abcdef-delete").close()

    with caplog.at_level("WARNING", "pylog"), Metadata(data) as metadata:
        topics = metadata.topics()

    kept = {"retention.ms": "-1", "retention.bytes": "-1"}
    assert {name: (entry.partitions, entry.configs) for name, entry in topics.items()} == {
        "orders": (3, kept),
        "eu-orders": (1, {**kept, "segment.bytes": "65536",
                          "message.timestamp.type": "LogAppendTime"}),
    }
    assert "missing, and made anew from 2 topics' directories" in caplog.text


def test_log_whose_own_words_are_damaged_still_has_its_topic(data):
    plant_logs(data, "orders", 2)
    (data / "orders-0" / "log.meta").write_bytes(b"?")

    with Metadata(data) as metadata:
        assert metadata.topics()["orders"].partitions == 2


def test_rebuilt_store_sets_the_damaged_one_aside(closed):
    plant_logs(closed, "orders", 2)
    (closed / "metadata.db").write_bytes(b"broken")

    with Metadata.rebuild(closed) as metadata:
        assert list(metadata.topics()) == ["orders"]
        metadata.create_topic("more")

    aside, = closed.glob("metadata.db.damaged-*")
    assert aside.read_bytes() == b"broken"
    with Metadata(closed) as metadata:
        assert sorted(metadata.topics()) == ["more", "orders"]


def test_those_who_have_it_open_change_over_to_the_rebuilt_one(closed):
    plant_logs(closed, "orders", 2)
    with Metadata(closed) as metadata, Metadata(closed) as idle:
        metadata.create_topic("new")
        before = metadata.sequence
        with Metadata.rebuild(closed) as rebuilt:
            assert list(metadata.topics()) == ["orders"]
            assert metadata.sequence > before
            metadata.create_topic("more")
            assert sorted(rebuilt.topics()) == ["more", "orders"]
            idle.close()        # its store is gone: it must not take the new one's files with it
            rebuilt.create_topic("last")
            assert sorted(metadata.topics()) == ["last", "more", "orders"]
    with Metadata(closed) as metadata:
        assert sorted(metadata.topics()) == ["last", "more", "orders"]

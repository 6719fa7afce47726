"""The public face: the names that are exported are the ones that are meant, each is documented, and
what a caller sees of a signature is what the docs say."""

import inspect
import pydoc
import types

import pytest

import pylog

NAMES = {
    "Admin", "AsyncConsumer", "AsyncProducer", "Broker", "Chunk", "Consumer",
    "ConsumerGroupMetadata", "Cursor", "Finding", "Log", "OffsetAndMetadata",
    "OffsetAndTimestamp", "Producer", "Record", "RecordMetadata", "Recovered", "Report",
    "SendFuture", "TopicPartition", "TypedRecord", "check",
    *pylog.errors.__all__,
}
CLASSES = sorted(
    (getattr(pylog, name) for name in NAMES if isinstance(getattr(pylog, name), type)),
    key=lambda kind: kind.__name__,
)


def public_members(kind):
    """Names that the class or its native half defines, without inherited built-in ones."""
    foreign = set(dir(object)) | set(dir(Exception)) | set(dir(OSError))
    return [name for name in dir(kind) if not name.startswith("_") and name not in foreign]


def test_all_is_what_is_meant_and_nothing_else():
    visible = {
        name for name, value in vars(pylog).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }

    assert set(pylog.__all__) == NAMES
    assert len(pylog.__all__) == len(NAMES)
    assert visible == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_is_documented(name):
    assert (getattr(pylog, name).__doc__ or "").strip()


@pytest.mark.parametrize(
    ("kind", "member"),
    [(pylog.Log, member) for member in public_members(pylog.Log)]
    + [(pylog.AsyncConsumer, member) for member in public_members(pylog.AsyncConsumer)]
    + [(pylog.Consumer, member) for member in public_members(pylog.Consumer)]
    + [(pylog.Cursor, member) for member in public_members(pylog.Cursor)]
    + [(pylog.Chunk, member) for member in public_members(pylog.Chunk)]
    + [(pylog.Record, member) for member in public_members(pylog.Record)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_method_of_the_log_is_documented(kind, member):
    # Cython gives these no text of their own
    if member in ("lock_timeout_ms", "next_offset", "skipped", "offset", "timestamp"):
        assert member in kind.__doc__
        return

    assert (getattr(kind, member).__doc__ or "").strip()


@pytest.mark.parametrize("kind", [
    pylog.Broker, pylog.Producer, pylog.AsyncProducer, pylog.Consumer, pylog.AsyncConsumer])
def test_unknown_option_is_refused_in_the_name_of_the_class_that_was_called(tmp_path, kind):
    with pytest.raises(TypeError, match=rf"^{kind.__name__}\.__init__\(\) .*'bootstrap_servers'"):
        kind(tmp_path / "data", bootstrap_servers="localhost:9092")

    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("kind", [pylog.Consumer, pylog.AsyncConsumer])
def test_consumer_shows_its_options(kind):
    parameters = inspect.signature(kind).parameters

    assert list(parameters)[:3] == ["broker", "topics", "group_id"]
    assert parameters["auto_offset_reset"].default == "earliest"


def test_append_takes_what_the_readme_says():
    parameters = list(inspect.signature(pylog.Log.append).parameters)

    assert parameters == ["self", "value", "key", "headers", "timestamp", "if_end", "durability"]


def test_append_many_takes_what_the_readme_says():
    parameters = list(inspect.signature(pylog.Log.append_many).parameters)

    assert parameters == [
        "self", "values", "keys", "headers", "timestamps", "atomic", "if_end", "durability"
    ]


def test_log_can_be_subclassed_without_a_slower_append(log_path):
    class Audit(pylog.Log):
        pass

    with Audit(log_path) as log:
        assert log.append(b"entry") == 0
        assert type(log).append is pylog.Log.append


@pytest.mark.parametrize("kind", [pylog.Record, pylog.Chunk, pylog.Cursor])
def test_native_classes_are_final(kind):
    with pytest.raises(TypeError):
        type("Mine", (kind,), {})


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_help_shows_nothing_that_cython_made(kind):
    assert "cython" not in pydoc.plain(pydoc.render_doc(kind))

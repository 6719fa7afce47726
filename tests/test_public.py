"""The public face: the names that are exported are the ones that are meant, each is documented, and
what a caller sees of a signature is what the docs say."""

import ast
import inspect
import pydoc
import re
import types
import typing
from pathlib import Path

import pytest

import pylog

NAMES = {
    "AcknowledgeType", "AsyncShareConsumer", "Delivery", "ShareConsumer",
    "ShareGroupOffset",
    "Admin", "AsyncConsumer", "AsyncProducer", "BatchMetadata", "Broker", "Chunk", "Claim",
    "ClaimEntry", "Consumer", "ConsumerGroupMetadata", "Cursor", "Finding", "GroupOffset", "Log",
    "OffsetAndMetadata", "OffsetAndTimestamp", "OffsetReset", "Producer", "Record",
    "RecordMetadata", "Recovered", "Report", "SegmentFigures", "SendFuture", "TopicEntry",
    "TopicPartition", "TypedRecord", "check",
    "make_deserializer", "make_serializer",
    *pylog.errors.__all__,
}
TALKERS = [pylog.Producer, pylog.AsyncProducer, pylog.Consumer, pylog.AsyncConsumer]
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


# What consumers stand on (Admin tells of groups in plain data), and what is only iterated over.
INNER = {"Group", "Processes", "Batches"}
_STUBS = Path(pylog.__file__).with_name("_native.pyi").read_text()
STUBS = {node.name: node for node in ast.parse(_STUBS).body if isinstance(node, ast.ClassDef)}


def classes_in(hint):
    """Those of pylog's that an annotation names, at any depth."""
    if isinstance(hint, type) and hint.__module__.startswith("pylog"):
        yield hint.__name__
    for part in hint if isinstance(hint, list) else typing.get_args(hint):
        yield from classes_in(part)


def named_natively(kind):
    """By the stubs of a native class's public methods, for it has no annotations."""
    for node in STUBS[kind.__name__].body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = [one.annotation for one in node.args.args + node.args.kwonlyargs]
            for hint in filter(None, [node.returns, *arguments]):
                for name in ast.walk(hint):
                    if isinstance(name, ast.Name) and name.id in STUBS:
                        yield node.name, name.id


def named_in(kind):
    """(member, class) for each class that the annotations of public methods and of fields name."""
    hints = {"": typing.get_type_hints(kind)}
    for parent in kind.__mro__:
        if parent.__module__ == "pylog._native":
            yield from named_natively(parent)
            continue
        for name, member in vars(parent).items():
            if isinstance(member, property):
                member = member.fget
            elif isinstance(member, classmethod | staticmethod):
                member = member.__func__
            if not name.startswith("_") and isinstance(member, types.FunctionType):
                hints[name] = typing.get_type_hints(member)
    for name, found in hints.items():
        for argument, hint in found.items():
            if not argument.startswith("_"):
                yield from ((name or argument, one) for one in classes_in(hint))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_what_a_public_method_takes_or_returns_can_be_named(kind):
    missing = {(member, name) for member, name in named_in(kind) if name not in NAMES | INNER}

    assert not missing


def test_classes_in_annotations_are_found():
    assert ("send_many", "BatchMetadata") in named_in(pylog.AsyncProducer)
    assert ("segments", "SegmentFigures") in named_in(pylog.Report)
    assert ("batches", "Batches") in named_in(pylog.Log)
    assert ("fetch", "Chunk") in named_in(pylog.Cursor)


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


@pytest.mark.parametrize(("option", "advice"), [
    ("bootstrap_servers", "a directory, or a Broker"), ("retries", "nothing is tried again"),
    ("ssl_cafile", "0700"), ("check_crcs", "leave it out"),
    ("max_request_size", "max.message.bytes"),
])
@pytest.mark.parametrize("kind", TALKERS)
def test_option_that_is_not_there_is_refused_with_what_to_do(tmp_path, kind, option, advice):
    with pytest.raises(TypeError, match=rf"^{kind.__name__}\.__init__\(\) .*{option}.*{advice}"):
        kind(tmp_path / "data", **{option: 1})

    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("kind", "option", "end"), [
    (pylog.Producer, "linger", "'linger'; did you mean 'linger_ms'?"),
    (pylog.AsyncProducer, "ack", "'ack'; did you mean 'acks'?"),
    (pylog.Consumer, "groupid", "'groupid'; did you mean 'group_id'?"),
    (pylog.AsyncConsumer, "xyz", "unexpected keyword argument 'xyz'"),
])
def test_option_that_is_written_wrong_is_refused_with_the_one_that_is_meant(
        tmp_path, kind, option, end):
    with pytest.raises(TypeError, match=re.escape(end) + "$"):
        kind(tmp_path, **{option: 1})


@pytest.mark.parametrize("kind", TALKERS)
def test_missing_broker_is_missed_in_the_name_of_the_class_that_was_called(kind):
    with pytest.raises(TypeError, match=rf"^{kind.__name__}\.__init__\(\) missing .* 'broker'"):
        kind()


@pytest.mark.parametrize("kind", TALKERS)
def test_help_tells_of_each_option(kind):
    head, _, text = pydoc.plain(pydoc.render_doc(kind)).partition(" |  \n")

    for option in inspect.signature(kind).parameters:
        assert re.search(rf"\b{option}\b", head), "not in the signature"
        assert re.search(rf"\b{option}\b[^.]*?:\s", text[:text.index(">>>")]), "not explained"


@pytest.mark.parametrize(("kind", "model"), [
    (pylog.AsyncProducer, pylog.Producer), (pylog.AsyncConsumer, pylog.Consumer)])
def test_options_of_an_event_loop_are_those_of_threads(kind, model):
    assert inspect.signature(kind) == inspect.signature(model)
    told = [one for one in inspect.cleandoc(model.__doc__).split("\n\n")
            if re.match("[a-z_, ]+: ", one)]
    assert len(told) >= 2
    assert all(one in inspect.cleandoc(kind.__doc__) for one in told)


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

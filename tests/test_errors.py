"""The exception tree: as drawn, caught like Python's own, and whole after a pickle."""

import builtins
import copy
import errno
import multiprocessing
import pickle
import re

import pytest

import pylog
from pylog import errors
from pylog.errors import PylogError

KINDS = [getattr(errors, name) for name in errors.__all__]
DRAWN = re.compile(r"^ {4}([│├└─ ]*)(\w+Error)(?: \+ (\w+))? +(-?\d+)(  retriable)?$", re.MULTILINE)
DETAILS = {"path": "data/orders/0.log", "errno": errno.EDQUOT, "position": 4096, "offset": 17}

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def drawn_tree():
    """Yields (name, parent, built-in, code, retriable) of each line of the drawing."""
    above = []
    for indent, name, builtin, code, retriable in DRAWN.findall(errors.__doc__):
        depth = len(indent) // 4
        del above[depth:]
        yield name, above[-1] if above else "Exception", builtin, int(code), bool(retriable)
        above.append(name)


def actual_tree():
    for kind in KINDS:
        parent, *builtin = kind.__bases__
        yield (
            kind.__name__, parent.__name__, builtin[0].__name__ if builtin else "", kind.code,
            kind.retriable,
        )


def raise_in_child(kind):
    raise kind("the child failed: look at it", **DETAILS)


def test_drawing_is_the_tree():
    assert sorted(drawn_tree()) == sorted(actual_tree())


def test_every_exception_is_listed_and_bears_a_code_of_its_own():
    defined = {
        name for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, PylogError)
    }

    assert defined == set(errors.__all__)
    assert len({kind.code for kind in KINDS}) == len(KINDS)
    assert all(kind.code <= -101 or kind.code > 0 or kind is PylogError for kind in KINDS)


def test_codes_are_kafkas_where_kafka_has_the_error():
    kafka = pytest.importorskip("kafka.errors")
    kafkas_name = {
        "PylogError": "UnknownError",
        "ConfigurationError": "InvalidConfigurationError",
        "LogError": "KafkaStorageError",
        "PylogTimeoutError": "RequestTimedOutError",
        "UnsupportedCodecError": "UnsupportedCompressionTypeError",
    }

    for kind in KINDS:
        if kind.code >= -1:
            name = kafkas_name.get(kind.__name__, kind.__name__)
            assert getattr(kafka, name).errno == kind.code, name


@each_kind
def test_every_class_is_documented_and_caught_by_its_builtin_kin(kind):
    for base in kind.__mro__[1:]:
        assert base.__module__ in ("pylog.errors", "builtins")
    for name, _, builtin, _, _ in drawn_tree():
        if builtin and issubclass(kind, getattr(errors, name)):
            with pytest.raises(getattr(builtins, builtin), match="try again"):
                raise kind("no: try again")
    assert kind.__doc__.partition("\n")[0].endswith((".", ":", ","))


@each_kind
def test_unknown_details_are_none(kind):
    error = kind("no: try again")

    assert str(error) == "no: try again"
    assert repr(error) == f"{kind.__name__}('no: try again')"
    assert error.path is None
    for name in error_attributes(kind) - {"errno"}:
        assert getattr(error, name) is None, name
    assert error.errno is None or isinstance(error, OSError)


@each_kind
def test_details_become_attributes_and_show_in_repr(kind):
    error = kind("no: try again", **DETAILS)

    assert {name: getattr(error, name) for name in DETAILS} == DETAILS
    assert str(error) == "no: try again"
    assert repr(error) == (
        f"{kind.__name__}('no: try again', path='data/orders/0.log', errno={errno.EDQUOT},"
        " position=4096, offset=17)"
    )


@each_kind
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_keeps_every_attribute(kind, protocol):
    error = kind("no: try again", **dict.fromkeys(error_attributes(kind), 7))
    error.add_note("seen by worker 3")

    assert_same(pickle.loads(pickle.dumps(error, protocol)), error)


@each_kind
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copy_keeps_every_attribute(kind, duplicate):
    error = kind("no: try again", **DETAILS)

    assert_same(duplicate(error), error)


def test_os_errors_look_like_pythons_own():
    full = errors.DiskFullError("disk full: free some space", path="data/orders")
    quota = errors.DiskFullError("over quota: ask for more", errno=errno.EDQUOT)
    late = errors.PylogTimeoutError("lock held for 10 s by process 7: see what stops it")

    assert (full.errno, full.strerror, full.filename) == (
        errno.ENOSPC, "No space left on device", "data/orders",
    )
    assert (quota.errno, quota.filename) == (errno.EDQUOT, None)
    assert late.errno == errno.ETIMEDOUT


def test_subclass_of_a_user_pickles_too():
    error = UsersError("mine: mend it", tenant="a")

    assert_same(pickle.loads(pickle.dumps(error)), error)


def test_error_crosses_a_process():
    context = multiprocessing.get_context("spawn")

    with context.Pool(1) as pool, pytest.raises(errors.CorruptRecordError) as caught:
        pool.apply(raise_in_child, (errors.CorruptRecordError,))

    assert {name: getattr(caught.value, name) for name in DETAILS} == DETAILS


class UsersError(errors.LogError):
    """What an application may derive."""


# ---- what the classes promise is there -----------------------------------------------------------

OUT_OF_RANGE = {
    "fetch": lambda log, offset: log.fetch(offset),
    "get": lambda log, offset: log.get(offset),
    "batches": lambda log, offset: next(log.batches(offset)),
    "cursor": lambda log, offset: next(seek(log, offset)),
    "fetch of a cursor": lambda log, offset: seek(log, offset).fetch(),
    "delete_before": lambda log, offset: log.delete_before(offset),
}


def seek(log, offset):
    cursor = log.cursor()
    cursor.seek(offset)
    return cursor


@pytest.fixture
def log(log_path):
    """Offsets 20 to 50 are kept of what was."""
    with pylog.Log(log_path) as log:
        log.append_many([b"x"] * 51)
        log.delete_before(20)
        yield log


@pytest.mark.parametrize("name", OUT_OF_RANGE)
@pytest.mark.parametrize("offset", [-1, 0, 19, 52, 2**63 - 1, 2**63])
def test_offset_out_of_range_tells_the_range(log, name, offset):
    if name == "delete_before" and 0 <= offset < 20:
        return    # it is done already
    with pytest.raises(pylog.OffsetOutOfRangeError, match=r"\[20, 51\]") as caught:
        OUT_OF_RANGE[name](log, offset)

    error = caught.value
    assert (error.offset, error.start_offset, error.end_offset) == (offset, 20, 51)


def test_getting_the_end_tells_the_range(log):
    with pytest.raises(pylog.OffsetOutOfRangeError) as caught:
        log.get(51)

    assert (caught.value.start_offset, caught.value.end_offset) == (20, 51)


def test_reader_that_fell_behind_goes_on_at_the_start(log):
    cursor = log.cursor(0)
    with pytest.raises(pylog.OffsetOutOfRangeError) as caught:
        next(cursor)
    cursor.seek(caught.value.start_offset)

    assert next(cursor).offset == 20


@pytest.mark.parametrize("append", [
    lambda log: log.append(b"", if_end=7),
    lambda log: log.append_many([b""], if_end=7),
    lambda log: log.append_many([], if_end=7),
    lambda log: log.append_many([b""], if_end=7, atomic=True),
])
def test_wrong_end_tells_both_ends(log, append):
    with pytest.raises(pylog.WrongEndOffsetError) as caught:
        append(log)

    assert (caught.value.offset, caught.value.end_offset) == (7, 51)


@pytest.mark.parametrize(("option", "value", "call"), [
    ("mode", "w", lambda log: pylog.Log(log.path, mode="w")),
    ("durability", "disk", lambda log: pylog.Log(log.path, durability="disk")),
    ("durability", "disk", lambda log: log.append(b"", durability="disk")),
    ("compression", "rar", lambda log: pylog.Log(log.path, compression="rar")),
    ("start", "first", lambda log: log.read("first")),
    ("stop", "last", lambda log: log.read(stop="last")),
    ("start", "first", lambda log: log.cursor("first")),
    ("on_corruption", "stop", lambda log: log.read(on_corruption="stop")),
    ("if_end", -7, lambda log: log.append(b"", if_end=-7)),
    ("if_end", -(2**70), lambda log: log.append_many([b""], if_end=-(2**70))),
    ("path", "", lambda log: pylog.Log("")),
    ("headers", "\ud800", lambda log: log.append(b"", headers=[("\ud800", b"")])),
    ("headers", "a\udfff", lambda log: log.append_many([b""], headers=[{"a\udfff": None}])),
])
def test_impossible_option_is_named_with_its_value(log, option, value, call):
    with pytest.raises(pylog.ConfigurationError, match=option) as caught:
        call(log)

    assert (caught.value.option, caught.value.value) == (option, value)


@pytest.mark.parametrize(("option", "call"), [
    ("keys", lambda log: log.append_many([b""], keys=[])),
    ("headers", lambda log: log.append_many([b""], headers=[])),
    ("timestamps", lambda log: log.append_many([b""], timestamps=[])),
    ("timestamps", lambda log: log.append_buffer(b"", [0, 0], timestamps=[])),
    ("positions", lambda log: log.append_buffer(b"", [])),
    ("positions", lambda log: log.append_buffer(b"", [0, 1])),
])
def test_list_of_another_length_is_named(log, option, call):
    with pytest.raises(pylog.ConfigurationError, match=option) as caught:
        call(log)

    assert caught.value.option == option


@pytest.mark.parametrize(("advice", "call"), [
    ("pass the end that you expect", lambda log: log.append(b"", if_end=-1)),
    ("pass where each value starts", lambda log: log.append_buffer(b"", [])),
    ("pass where each value starts", lambda log: log.append_buffer(b"abc", [0, 2, 1])),
    ("name it otherwise", lambda log: log.append(b"", headers={"\ud800": b""})),
])
def test_refused_argument_is_told_with_what_to_pass(log, advice, call):
    end = log.end_offset

    with pytest.raises(pylog.ConfigurationError, match=f"nothing was appended; {advice}"):
        call(log)
    assert log.end_offset == end


def error_attributes(kind):
    """The names of the details that a class and its bases declare."""
    declared = (base.__annotations__ for base in kind.__mro__ if issubclass(base, PylogError))
    return {name for names in declared for name in names} - {"code", "retriable"}


def assert_same(got, expected):
    assert type(got) is type(expected)
    assert got is not expected
    assert got.args == expected.args
    assert vars(got) == vars(expected)
    assert repr(got) == repr(expected)
    assert (got.errno, getattr(got, "strerror", None)) == (
        expected.errno, getattr(expected, "strerror", None),
    )

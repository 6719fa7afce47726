"""What counts as bytes: every way in takes a contiguous buffer of plain data, and nothing else."""

import array
import ctypes
import mmap

import numpy as np
import pytest

import pylog

OBJECTS = {
    "objects": np.array([b"secret", b"other"], dtype=object),
    "one object": np.array(b"secret", dtype=object),
    "view of objects": memoryview(np.array([b"secret"], dtype=object)),
    "field of objects": np.zeros(2, dtype=[("n", "i4"), ("o", object)]),
    "pointers of ctypes": (ctypes.py_object * 2)(b"secret", b"other"),
}
STRIDED = {
    "view": memoryview(b"abcdef")[::2],
    "array": np.arange(10)[::2],
    "columns": np.zeros((4, 4))[:, ::2],
    "fortran": np.zeros((2, 3), order="F"),
}
OTHER = {"int": 5, "list": [b"a"], "dict": {}, "str": "text", "set": {b"a"}, "type": bytes}
TIMES = np.array(["2020-01-01"], dtype="datetime64[ms]")

WAYS_IN = {
    "append": lambda log, value: log.append(value),
    "key": lambda log, value: log.append(b"", value),
    "header": lambda log, value: log.append(b"", headers={"name": value}),
    "append_many": lambda log, value: log.append_many([b"fine", value]),
    "keys": lambda log, value: log.append_many([b"", b""], keys=[None, value]),
    "headers": lambda log, value: log.append_many([b""], headers=[[("name", value)]]),
    "append_buffer": lambda log, value: log.append_buffer(value, [0, 1]),
}
each_way = pytest.mark.parametrize("put", WAYS_IN.values(), ids=WAYS_IN)


@pytest.fixture
def log(log_path):
    with pylog.Log(log_path) as log:
        yield log


@each_way
@pytest.mark.parametrize("value", OBJECTS.values(), ids=OBJECTS)
def test_addresses_of_objects_are_not_written(log, put, value):
    with pytest.raises(TypeError, match="Python objects"):
        put(log, value)

    assert log.end_offset == 0


@each_way
@pytest.mark.parametrize("value", STRIDED.values(), ids=STRIDED)
def test_buffer_that_is_not_contiguous_is_told_so(log, put, value):
    with pytest.raises(TypeError, match="must be contiguous"):
        put(log, value)

    assert log.end_offset == 0


@each_way
@pytest.mark.parametrize("value", OTHER.values(), ids=OTHER)
def test_what_is_no_buffer_is_named(log, put, value):
    with pytest.raises(TypeError, match=rf"must be bytes-like.*, not {type(value).__name__}"):
        put(log, value)

    assert log.end_offset == 0


@each_way
def test_buffer_that_its_owner_does_not_give_is_told(log, put):
    with pytest.raises(TypeError, match="cannot be read as bytes"):
        put(log, TIMES)


@pytest.mark.parametrize("value", [
    bytearray(b"bytes"), memoryview(b"bytes"), memoryview(b"-b-y-t-e-s")[1::2].tobytes(),
    array.array("b", b"bytes"), np.frombuffer(b"bytes", np.uint8), np.bytes_(b"bytes"),
    (ctypes.c_char * 5)(*b"bytes"), np.frombuffer(b"bytes", [("Offset", "i4"), ("O", "u1")]),
], ids=lambda value: type(value).__name__)
def test_every_contiguous_buffer_of_plain_data_is_taken(log, value):
    log.append(value, key=value, headers={"name": value})
    log.append_many([value], keys=[value], headers=[{"name": value}])
    log.append_buffer(value, [0, 5])

    first, second, third = log.read()
    assert (first.key, first.value, first.headers) == (b"bytes", b"bytes", (("name", b"bytes"),))
    assert (second.key, second.value, second.headers) == (first.key, first.value, first.headers)
    assert third.value == b"bytes"


def test_numbers_are_written_as_they_lie_in_memory(log):
    numbers = np.arange(6, dtype="<i4").reshape(2, 3)

    log.append(numbers)
    log.append_buffer(numbers, [0, 12, 24])

    assert [record.value for record in log.read()] == [
        numbers.tobytes(), numbers[0].tobytes(), numbers[1].tobytes()]


def test_buffer_is_released(log):
    memory = mmap.mmap(-1, 4096)
    growing = bytearray(b"bytes")

    log.append(memory)
    log.append(growing, key=growing)
    log.append_many([memory, growing])
    log.append_buffer(growing, [0, 5])
    with pytest.raises(TypeError):
        log.append(memoryview(growing)[::2])
    with pytest.raises(pylog.ConfigurationError):
        log.append_buffer(growing, [0, 9])

    growing.extend(b"more")    # BufferError, if anybody still held it
    memory.close()

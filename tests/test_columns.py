"""The columns of a chunk: arrays that many may hold, and that go back into a log as they are."""

import numpy as np
import pytest

import pylog

COLUMNS = ["offsets", "timestamps", "value_positions", "value_sizes", "key_positions", "key_sizes"]


@pytest.fixture(params=[None, "lz4"])
def chunk(log_path, request):
    with pylog.Log(log_path, compression=request.param) as log:
        log.append_many([b"same" * 100] * 5, keys=[b"k"] * 5, timestamps=range(100, 105))
        return log.fetch(0)


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_are_read_only(chunk, name):
    column = getattr(chunk, name)

    with pytest.raises(ValueError, match="read-only"):
        column[0] = 7
    with pytest.raises(ValueError, match="read-only"):
        column.sort()
    assert list(getattr(chunk, name)) == list(column)


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_nothing_are_empty_and_read_only(log_path, name):
    with pylog.Log(log_path) as log:
        column = getattr(log.fetch(0), name)

    assert len(column) == 0
    assert not column.flags.writeable


@pytest.mark.parametrize("options", [{}, {"atomic": True}])
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_columns_go_back_into_a_log(chunk, tmp_path, compression, options):
    with pylog.Log(tmp_path / "copy", compression=compression) as log:
        log.append_many(chunk.values(), keys=chunk.keys(), timestamps=chunk.timestamps, **options)

        assert list(log.read()) == list(chunk)


def test_values_of_a_chunk_go_into_a_log_by_their_positions(chunk, tmp_path):
    positions = np.append(chunk.value_positions, len(chunk.payload))

    with pylog.Log(tmp_path / "copy") as log:
        log.append_buffer(chunk.payload, positions, timestamps=chunk.timestamps)

        assert log.fetch(0).timestamps.tolist() == chunk.timestamps.tolist()
        assert all(r.value.startswith(b"same" * 100) for r in log.read())

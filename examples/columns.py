"""Numbers in, numbers out: a numpy array goes into a log as records and is read by columns.

    python examples/columns.py
"""

import tempfile

import numpy

import pylog


def main() -> None:
    walk = numpy.cumsum(numpy.random.default_rng(1).normal(size=100_000))
    positions = numpy.arange(len(walk) + 1) * walk.itemsize     # value i is [i], [i + 1]
    with tempfile.TemporaryDirectory(dir=".") as folder, pylog.Log(f"{folder}/walk") as log:
        log.append_buffer(walk, positions)
        greatest = -numpy.inf
        cursor = log.cursor()
        while chunk := cursor.fetch():      # a megabyte at a time, CRC checked, nothing copied
            payload = numpy.frombuffer(chunk.payload, dtype=numpy.uint8)
            rows = chunk.value_positions[:, None] + numpy.arange(walk.itemsize)
            greatest = max(greatest, payload[rows].view(walk.dtype).max())
        print(f"greatest of {log.end_offset:,} numbers: {greatest:.3f}")
        assert greatest == walk.max()


if __name__ == "__main__":
    main()

"""Single flipped bits, over every byte of every file of a closed log, and every truncation.

A flip is *harmless*: all records equal the model in every field, by every way of asking; or it is
*told*: by an error, or a finding of `pylog.check`, that names the file and a position inside the
damaged batch or entry. Nothing else may happen, above all no changed record. The table of outcomes
by field is printed (pytest -s, or after a failure).
"""

import os
import shutil
import tempfile
from bisect import bisect_right
from collections import Counter
from pathlib import Path

import pytest
from faults import files_of, flip

import pylog
from pylog import _native

NOW = 1_700_000_000_000
LAYOUT = sorted((at, name) for name, at in _native.batch_layout().items())
CONTROL_IN_USE = 1024           # the rest of the page is zero and never read


@pytest.fixture
def place():
    """A directory in memory if there is one: thousands of logs are opened in it."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="pylog-", dir=where))
    yield path
    shutil.rmtree(path)


def fields_of(record):
    return (record.offset, record.timestamp, record.timestamp_type, record.key, record.value,
            record.headers, record.leader_epoch)


class Model:
    """A small closed log with every kind of batch in some segments, and the truth about it."""

    def __init__(self, path, rng):
        self.path = path
        options = {"segment_bytes": 4096, "index_interval_bytes": 128}
        with pylog.Log(path, compression="lz4", **options) as log:
            log.append_many([b"packed" * 20] * 5, timestamps=[NOW + 3, NOW, NOW + 9, NOW, NOW])
        with pylog.Log(path, **options) as log:
            for number in range(60):
                log.append(rng.randbytes(40), key=b"key", headers={"h": b"v", "null": None},
                           timestamp=NOW + 10 * number)
                if number % 4 == 0:
                    log.flush()
            log.append_many([b"value", None, b""], keys=[b"k", None, b""], timestamps=NOW + 800)
            log.append_many([b"%d" % i for i in range(20)], atomic=True, timestamps=NOW + 805)
            log.append(b"last", timestamp=NOW + 700)
            assert log.stats()["rolls"] >= 1
        self.files = files_of(path)
        with pylog.Log(path, mode="r") as log:
            self.records = [fields_of(record) for record in log.read()]
        self.times = {NOW + t: self.first_at(NOW + t) for t in (0, 1, 5, 9, 10, 95, 333, 599, 801)}
        self.batches = {name: sorted(batches_in(data)) for name, data in self.files.items()
                        if name.endswith(".log")}

    def first_at(self, time):
        return next((fields[0] for fields in self.records if fields[1] >= time), None)

    def restore(self):
        for path in self.path.iterdir():
            if path.name not in self.files:
                path.unlink()
        for name, data in self.files.items():
            (self.path / name).write_bytes(data)

    def observe(self, mode):
        """Asks for everything, in every way; returns the first error of each, in a list."""
        try:
            log = pylog.Log(self.path, mode=mode)
        except pylog.PylogError as error:
            return [error]
        errors = []
        with log:
            self.expect(errors, self.check_reading, log)
            self.expect(errors, self.check_skipping, log, bool(errors))
            for time, offset in self.times.items():
                self.expect(errors, self.check_time, log, time, offset)
            for offset in range(0, len(self.records), 13):
                self.expect(errors, self.check_get, log, offset)
            self.expect(errors, self.check_batches, log)
        return errors

    @staticmethod
    def expect(errors, ask, *arguments):
        try:
            ask(*arguments)
        except pylog.PylogError as error:
            errors.append(error)

    def check_reading(self, log):
        count = 0
        for record, fields in zip(log.read(), self.records, strict=False):
            assert fields_of(record) == fields
            count += 1
        assert count == len(self.records)

    def check_skipping(self, log, is_damaged):
        got = [fields_of(record) for record in log.read(on_corruption="skip")]
        assert set(got) <= set(self.records)
        assert [fields[0] for fields in got] == sorted({fields[0] for fields in got})
        assert is_damaged or got == self.records

    def check_time(self, log, time, offset):
        assert log.offset_for_time(time) == offset

    def check_get(self, log, offset):
        assert fields_of(log.get(offset)) == self.records[offset]

    def check_batches(self, log):
        got = b"".join(bytes(batch) for batch in log.batches(0))
        assert got == b"".join(self.files[name] for name in sorted(self.batches))

    def findings(self):
        """What `pylog.check` says: (file name, position)."""
        try:
            return {(Path(found.path).name, found.position)
                    for found in pylog.check(self.path).findings}
        except pylog.PylogError as error:
            return {place_of(error)}

    def entry(self, name, position):
        """[start, end) of the batch, index entry or whole file that a byte belongs to."""
        if name in self.batches:
            starts = [start for start, _ in self.batches[name]]
            return self.batches[name][bisect_right(starts, position) - 1]
        size = {".index": 8, ".timeindex": 12}.get(Path(name).suffix)
        if size:
            return position - position % size, position - position % size + size
        return 0, len(self.files[name])

    def field(self, name, position):
        """What a byte is, for the table."""
        if name in self.batches:
            inside = position - self.entry(name, position)[0]
            return "batch." + LAYOUT[bisect_right(LAYOUT, (inside, "~")) - 1][1]
        if name == "log.meta":
            line = self.files[name][:position + 1].decode().count("\n")
            return "log.meta." + self.files[name].decode().split("\n")[
                line - (self.files[name][position:position + 1] == b"\n")].split(" ")[0]
        return Path(name).suffix[1:] or name


def batches_in(data):
    position = 0
    while position < len(data):
        size = _native.decode_batch(data[position:])["size"]
        yield position, position + size
        position += size


def place_of(error):
    return Path(error.path or "").name, getattr(error, "position", None)


def is_told(model, name, position, places):
    """Does one of the places lie in the damaged entry, or name a small file at least?"""
    start, end = model.entry(name, position)
    return any(file == name and (at is None or start <= at < end or name not in model.batches)
               for file, at in places)


def outcome(model, name, position, mode):
    """harmless, told, or a sentence that says what must not be."""
    try:
        errors = model.observe(mode)
    except AssertionError as error:
        return f"WRONG: {str(error).splitlines()[0]}"
    if not errors:
        return "harmless"
    places = {place_of(error) for error in errors}
    if is_told(model, name, position, places):
        return "told"
    return "told by check" if is_told(model, name, position, model.findings()) \
        else f"WRONG: only {errors[0]!r}"


def bits_to_flip(model, rng):
    """One or two bits of every byte that is in use, and some of the rest."""
    for name, data in sorted(model.files.items()):
        dense = CONTROL_IN_USE if name == "control" else 0 if name == "doorbells" else len(data)
        for position in range(dense):
            yield name, 8 * position + rng.randrange(8)
        for _ in range(min(100, len(data) - dense)):
            yield name, rng.randrange(8 * dense, 8 * len(data))


def print_table(table):
    print(f"\n{'field':34}{'harmless':>10}{'told':>8}{'by check':>10}")
    for field in sorted({field for field, _ in table}):
        print(f"{field:34}" + f"{table[field, 'harmless']:>10}{table[field, 'told']:>8}"
              f"{table[field, 'told by check']:>10}")
    print(f"{sum(table.values())} flips")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["a", "r"])
def test_flipped_bit_is_harmless_or_told(place, rng, mode):
    model, table, wrong = Model(place / "log", rng), Counter(), []

    for name, bit in bits_to_flip(model, rng):
        flip(model.path / name, bit)
        said = outcome(model, name, bit // 8, mode)
        table[model.field(name, bit // 8), said] += 1
        if said.startswith("WRONG"):
            wrong.append(f"{name} byte {bit // 8} bit {bit % 8}: {said}")
        model.restore()

    print_table(table)
    assert not wrong, "\n".join(wrong[:20])
    assert sum(table.values()) > 4000
    assert all(table[field, "harmless"] == 0 for field in ("batch.records", "batch.crc"))


@pytest.mark.slow
def test_truncation_at_any_byte_is_told(place, rng):
    model, wrong = Model(place / "log", rng), []

    for name in sorted(model.batches):
        data = model.files[name]
        for size in range(len(data)):
            (model.path / name).write_bytes(data[:size])
            said = outcome_of_truncation(model, name, size)
            if said:
                wrong.append(f"{name} cut to {size} of {len(data)}: {said}")
            model.restore()

    assert not wrong, "\n".join(wrong[:20])


def outcome_of_truncation(model, name, size):
    try:
        errors = model.observe("ar"[size % 2])
    except AssertionError as error:
        return f"WRONG: {str(error).splitlines()[0]}"
    if not errors:
        return "nothing was said"
    start, _ = model.entry(name, size)
    places = {place_of(error) for error in errors}
    if any(file == name and at is not None and start <= at <= size for file, at in places):
        return None
    return f"only {errors[0]!r}"

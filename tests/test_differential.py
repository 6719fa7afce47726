"""Other people's decoders over our files, and ours over other people's batches.

A log is written by every way in, across rolls, a SIGKILL and a recovery; then every segment file,
whole, goes through the record readers of aiokafka (its C extension) and kafka-python (pure Python),
with CRCs checked, and every field of every batch and record is compared with ours and with what was
appended. With Java and Kafka's jars there is a third reader: Kafka's own DumpLogSegments.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder as AioBuilder
from aiokafka.record.memory_records import MemoryRecords as AioRecords
from handmade import NOW, Plain, plain
from kafka.record.default_records import DefaultRecordBatchBuilder as PythonBuilder
from kafka.record.memory_records import MemoryRecords as PythonRecords

import pylog
from pylog import _native

READERS = {"aiokafka": AioRecords, "kafka-python": PythonRecords}
BUILDERS = {"aiokafka": AioBuilder, "kafka-python": PythonBuilder}
CODECS = {"none": 0, "gzip": 1, "lz4": 3}

each_reader = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
each_builder = pytest.mark.parametrize("builder", BUILDERS.values(), ids=BUILDERS)


# ---- writing by every way in -------------------------------------------------------------------


class Model:
    """A log, and the list of what it must hold. None as a time: any will do."""

    def __init__(self, path, rng):
        self.path, self.rng, self.records, self.now = path, rng, [], NOW

    def expect(self, value, key=None, headers=(), timestamp=None):
        self.records.append(Plain(len(self.records), timestamp, key, value, tuple(headers)))

    def make(self):
        """A record's arguments, of any shape."""
        rng = self.rng
        self.now += rng.randrange(-50, 200)
        value = rng.choice([None, b"", rng.randbytes(rng.randrange(300)), b"again " * 30])
        key = rng.choice([None, b"", b"key", rng.randbytes(rng.randrange(40))])
        headers = [(rng.choice(["h", "", "ключ"]), rng.choice([None, b"", b"x" * 70]))
                   for _ in range(rng.choice([0, 0, 0, 1, 3]))]
        return value, key, headers, self.now

    def append(self, log):
        value, key, headers, time = self.make()
        time = self.rng.choice([time, None])
        assert log.append(value, key, headers, time) == len(self.records)
        self.expect(value, key, headers, time)

    def append_many(self, log, count, **options):
        rows = [self.make() for _ in range(count)]
        values, keys, headers, times = map(list, zip(*rows, strict=True))
        style = self.rng.randrange(3)
        if style == 0:    # values alone
            keys, headers, times = None, None, None
            rows = [(value, None, [], None) for value in values]
        elif style == 1:
            headers, times = None, self.now
            rows = [(value, key, [], self.now) for value, key, _, _ in rows]
        assert log.append_many(values, keys, headers, times, **options) == len(self.records)
        for row in rows:
            self.expect(*row)

    def append_buffer(self, log, count):
        values = [self.rng.randbytes(self.rng.randrange(200)) for _ in range(count)]
        positions = np.cumsum([0, *map(len, values)])
        times = self.rng.choice([None, NOW, [NOW + i for i in range(count)]])
        assert log.append_buffer(b"".join(values), positions, times) == len(self.records)
        for i, value in enumerate(values):
            self.expect(value, None, (), times[i] if isinstance(times, list) else times)

    def append_by_all_ways(self, log, rounds):
        for _ in range(rounds):
            match self.rng.randrange(8):
                case 0 | 1 | 2:
                    for _ in range(self.rng.randrange(1, 40)):
                        self.append(log)
                case 3:
                    self.append_many(log, self.rng.randrange(1, 300))
                case 4:
                    self.append_many(log, self.rng.randrange(1, 100), atomic=True)
                case 5:
                    self.append_many(log, self.rng.randrange(1, 50), if_end=log.end_offset)
                case 6:
                    self.append_buffer(log, self.rng.randrange(1, 200))
                case 7:
                    value = self.rng.randbytes(self.rng.randrange(30_000, 120_000))
                    log.append(value, b"big", None, NOW)
                    self.expect(value, b"big", (), NOW)
            if self.rng.random() < 0.1:
                log.flush()


KILLED_WRITER = """
import sys, pylog
log = pylog.Log(sys.argv[1])
for number in range(int(sys.argv[2])):
    log.append(b"from the killed one %d" % number, b"k", None, 5)
log.append_many([b"many %d" % number for number in range(1000)], timestamps=5)
log.append(b"the tail stays open", timestamp=5)
print("written", flush=True)
sys.stdin.read()
"""


def write_and_be_killed(model):
    """A process of its own appends 1,501 records and is killed with its last batch open."""
    child = subprocess.Popen([sys.executable, "-c", KILLED_WRITER, model.path, "500"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"written\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    for number in range(500):
        model.expect(b"from the killed one %d" % number, b"k", (), 5)
    for number in range(1000):
        model.expect(b"many %d" % number, None, (), 5)
    model.expect(b"the tail stays open", None, (), 5)


def scan_at_next_open(path):
    """As after a reboot, but for the lost pages: the page is gone and nobody closed the log."""
    (path / "control").unlink()
    text = re.sub(r"clean_end -?\d+", "clean_end -1", (path / "log.meta").read_text())
    body = text[:text.index("crc32c")]
    (path / "log.meta").write_text(f"{body}crc32c {_native.crc32c(body.encode()):08x}\n")


@pytest.fixture
def model(log_path, rng):
    """A closed log written by every way in, with all that may happen to it in between."""
    model = Model(log_path, rng)
    with pylog.Log(log_path, segment_bytes=1 << 17, index_interval_bytes=1000) as log:
        model.append_by_all_ways(log, 40)
    with pylog.Log(log_path, compression="lz4") as log:
        model.append_by_all_ways(log, 40)
    write_and_be_killed(model)
    with pylog.Log(log_path) as log:
        assert log.recovered.reason == "killed"
        model.append_by_all_ways(log, 15)
    scan_at_next_open(log_path)
    with pylog.Log(log_path, compression="lz4") as log:
        assert log.recovered.reason == "scanned"
        gap = log.end_offset - len(model.records)
        assert gap > 0
        model.gap_at, model.gap = len(model.records), gap
        first = log.append(b"after the gap", timestamp=NOW)
        model.expect(b"after the gap", None, (), NOW)
        assert first == model.gap_at + gap
        log.append_many([b"squeezed " * 9] * 400, timestamps=NOW)
        for _ in range(400):
            model.expect(b"squeezed " * 9, None, (), NOW)
    model.records = [record if record.offset < model.gap_at else
                     record._replace(offset=record.offset + gap) for record in model.records]
    return model


# ---- reading by others -------------------------------------------------------------------------


def segments(path):
    return sorted(path.glob("*.log"))


def batches_of(reader, data):
    """Their batches of a whole file; every byte of it must be theirs."""
    records, size = reader(data), 0
    while records.has_next():
        batch = records.next_batch()
        assert batch.validate_crc()
        size += batch.size_in_bytes if hasattr(batch, "size_in_bytes") else 0
        yield batch
    assert not size or size == len(data)


def their_record(record):
    assert record.timestamp_type == 0
    return Plain(record.offset, record.timestamp, record.key, record.value, tuple(record.headers))


def same_time_where_given(ours, wanted):
    return [record._replace(timestamp=None) if model.timestamp is None else record
            for record, model in zip(ours, wanted, strict=True)]


@pytest.mark.slow
@each_reader
def test_segment_files_mean_the_same_to_others(model, reader):
    theirs, counted = [], 0
    for path in segments(model.path):
        data, at = path.read_bytes(), 0
        for batch in batches_of(reader, data):
            fields = _native.decode_batch(memoryview(data)[at:])
            assert (batch.base_offset, batch.crc, batch.attributes, batch.magic) == (
                fields["base_offset"], int.from_bytes(data[at + 17:at + 21], "big"),
                fields["attributes"], 2)
            assert (batch.first_timestamp, batch.max_timestamp) == (
                fields["base_timestamp"], fields["max_timestamp"])
            assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (-1, -1, -1)
            assert batch.next_offset == fields["last_offset"] + 1
            theirs += map(their_record, batch)
            at += fields["size"]
            counted += fields["records_count"]
        assert at == len(data)

    with pylog.Log(model.path, mode="r") as log:
        ours = [plain(record) for record in log.read()]
    assert counted == len(theirs)
    assert theirs == ours
    assert same_time_where_given(ours, model.records) == model.records
    assert len(segments(model.path)) > 5
    print(f"{len(ours):,} records compared")


@pytest.mark.slow
@each_reader
def test_relayed_batches_mean_the_same_to_others(model, reader):
    with pylog.Log(model.path) as log:
        end = log.append(b"an open tail", timestamp=NOW) + 1
        relayed = b"".join(bytes(batch) for batch in log.batches(0))

    theirs = [their_record(record) for batch in batches_of(reader, relayed) for record in batch]

    assert theirs[-1] == Plain(end - 1, NOW, None, b"an open tail", ())
    assert same_time_where_given(theirs[:-1], model.records) == model.records


@each_reader
def test_append_time_means_the_same_to_others(log_path, reader):
    with pylog.Log(log_path, timestamp_type="append") as log:
        log.append(b"one", timestamp=1)
        log.append_many([b"two", b"three"], timestamps=[1, 2])
        ours = [(record.offset, record.timestamp, record.value) for record in log.read()]
        relayed = b"".join(bytes(batch) for batch in log.batches(0))

    theirs = [record for batch in batches_of(reader, relayed) for record in batch]

    assert [(record.offset, record.timestamp, record.value) for record in theirs] == ours
    assert {record.timestamp_type for record in theirs} == {1}


# ---- their batches, read by us -----------------------------------------------------------------


def build(builder, records, codec=0, is_transactional=False, producer=(-1, -1, -1)):
    batch = builder(2, codec, is_transactional, *producer, 1 << 24)
    for i, record in enumerate(records):
        assert batch.append(i, record.timestamp, record.key, record.value, list(record.headers))
    return bytes(batch.build())


@pytest.fixture
def foreign(rng, log_path):
    model = Model(log_path, rng)
    return [Plain(i, time, key, value, tuple(headers)) for i in range(300)
            for value, key, headers, time in [model.make()]]


@each_builder
@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_batches_of_others_are_decoded(builder, foreign, codec):
    batch = build(builder, foreign, codec)

    fields = _native.decode_batch(batch)
    assert (fields["codec"], fields["crc_ok"], fields["records_error"]) == (codec, True, None)
    assert [plain(record) for record in _native.decode_records(batch)] == foreign


@each_builder
@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_producer_fields_of_others_are_decoded(builder, foreign, codec):
    batch = build(builder, foreign, codec, is_transactional=True, producer=(1 << 40, 7, 99))

    fields = _native.decode_batch(batch)
    assert (fields["producer_id"], fields["producer_epoch"], fields["base_sequence"]) == (
        1 << 40, 7, 99)
    assert fields["attributes"] == 0x10 | codec
    assert [plain(record) for record in _native.decode_records(batch)] == foreign


@each_builder
def test_encoders_write_the_same_bytes(builder, foreign):
    values, keys, headers, times = ([getattr(record, name) for record in foreign]
                                    for name in ("value", "key", "headers", "timestamp"))

    ours = _native.encode_batch(values, keys, headers, times, 0, 0, 1 << 40, 7, 99, 0x10)
    theirs = build(builder, foreign, 0, True, (1 << 40, 7, 99))

    assert ours[:12] + ours[16:] == theirs[:12] + theirs[16:]    # the epoch is the log's to set


@each_builder
def test_batches_of_others_in_a_segment_are_read(builder, foreign, log_path):
    """As a server will put them there: base offset and epoch stamped, the rest as it came."""
    with pylog.Log(log_path) as log:
        log.append_many([b""] * (3 * len(foreign)))
    data = b""
    for i, codec in enumerate(CODECS.values()):
        batch = build(builder, foreign, codec)
        data += (i * len(foreign)).to_bytes(8, "big") + batch[8:12] + bytes(4) + batch[16:]
    segments(log_path)[0].write_bytes(data)

    with pylog.Log(log_path) as log:
        ours = [plain(record) for record in log.read()]
        values = []
        cursor = log.cursor()
        while len(chunk := cursor.fetch()):
            values += chunk.values()

    wanted = [record._replace(offset=record.offset + i * len(foreign))
              for i in range(3) for record in foreign]
    assert ours == wanted
    assert values == [record.value for record in wanted]


# ---- Kafka's own reader ------------------------------------------------------------------------

JARS = os.environ.get("PYLOG_KAFKA_JARS")


@pytest.mark.slow
@pytest.mark.skipif(not JARS or not shutil.which("java"),
                    reason="PYLOG_KAFKA_JARS names no folder of Kafka's jars, or there is no java")
def test_kafkas_own_tool_finds_nothing_wrong(model):
    files = [str(path) for end in ("log", "index", "timeindex")
             for path in sorted(model.path.glob(f"*.{end}"))]

    dump = subprocess.run(
        ["java", "-cp", str(Path(JARS) / "*"), "kafka.tools.DumpLogSegments", "--deep-iteration",
         "--print-data-log", "--files", ",".join(files)],
        capture_output=True, text=True, check=False)

    said = dump.stdout + dump.stderr
    assert dump.returncode == 0, said[-2000:]
    for word in ("Mismatches", "invalid bytes", "Exception", "isvalid: false", "out of order"):
        assert word not in said, said[said.index(word) - 500:][:2000]
    dumped = re.findall(r"^\| offset: (\d+)", dump.stdout, re.M)
    assert [int(offset) for offset in dumped] == [record.offset for record in model.records]
    assert "isvalid: true" in said
    assert "timestamp: " in said

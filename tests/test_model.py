"""A log against its model: random steps through every way in and out, and through every end.

Roll (the segments are small), delete_before, flush, close, reopen, a process that appends and is
killed, a power cut (the log goes on in an image of its disk, see faults.py), readers of both modes.
"""

import logging
import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from children import killed
from faults import reboot_image, snapshot
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from model import Entry, LogModel, read_as_model

import pylog
from pylog import _native

NOW = 1_700_000_000_000
small_bytes = st.one_of(st.none(), st.binary(max_size=40), st.integers(0, 3000).map(bytes))
entries = st.builds(
    Entry, value=small_bytes, key=st.one_of(st.none(), st.binary(max_size=10)),
    headers=st.one_of(st.just(()), st.lists(st.tuples(
        st.text(max_size=3), st.one_of(st.none(), st.binary(max_size=5))), max_size=2).map(tuple)),
    timestamp=st.integers(NOW, NOW + 1000),
)
batches = st.lists(entries, min_size=1, max_size=30)
parts = st.floats(0, 1)         # of the way from the start of the log to its end


class LogMachine(RuleBasedStateMachine):
    """Steps and what must hold after each."""

    @initialize(
        durability=st.sampled_from(["os", "interval", "fsync"]),
        segment_bytes=st.sampled_from([4096, 10_000, 1 << 20]),
        index_interval_bytes=st.sampled_from([0, 300, 4096]),
        compression=st.sampled_from([None, "lz4"]),
    )
    def create(self, compression, **options):
        self.folder = pytest.make_folder(options["durability"])
        self.path = self.folder / "log"
        self.compression = compression
        self.model = LogModel()
        self.images = 0
        self.log = pylog.Log(self.path, compression=compression, flush_interval_ms=3_600_000,
                             **options)
        self.is_fsync = self.log.durability == "fsync"
        self.since_flush()

    def since_flush(self):
        """A power cut goes back to here at most."""
        self.log.flush()
        self.model.flush()
        self.lives = [snapshot(self.log)]

    def after_append(self):
        if self.is_fsync:
            self.model.flush()
        self.lives.append(snapshot(self.log))

    def place(self, part):
        """An offset of a record, or one beside a gap, or the end."""
        known = [offset for offset in self.model.entries if offset >= self.model.start]
        beside = [offset + 1 for offset in known if offset + 1 not in self.model.entries]
        places = sorted({self.model.start, *known, *beside, self.model.end})
        return places[int(part * (len(places) - 1))]

    # ---- in -------------------------------------------------------------------------------------

    @rule(entry=entries)
    def append(self, entry):
        offset = self.log.append(entry.value, entry.key, entry.headers, entry.timestamp)
        assert offset == self.model.append(entry)
        self.after_append()

    @rule(batch=batches, atomic=st.booleans())
    def append_many(self, batch, atomic):
        atomic = atomic and sum(len(e.value or b"") + 200 for e in batch) < 3500
        if any(len(e.value or b"") > 3000 for e in batch):
            return
        assert self.append_list(self.log, batch, atomic=atomic) == self.model.append(*batch)
        self.after_append()

    @staticmethod
    def append_list(log, batch, **options):
        return log.append_many([e.value for e in batch], keys=[e.key for e in batch],
                               headers=[e.headers for e in batch],
                               timestamps=[e.timestamp for e in batch], **options)

    @rule(batch=batches)
    def append_buffer(self, batch):
        plain = [Entry(e.value or b"", None, (), e.timestamp) for e in batch]
        positions = [0]
        for entry in plain:
            positions.append(positions[-1] + len(entry.value))
        first = self.log.append_buffer(b"".join(e.value for e in plain), positions,
                                       timestamps=[e.timestamp for e in plain])
        assert first == self.model.append(*plain)
        self.after_append()

    @rule(entry=entries, off_by=st.integers(-2, 2))
    def append_if_end(self, entry, off_by):
        expected = max(0, self.model.end + off_by)
        arguments = (entry.value, entry.key, entry.headers, entry.timestamp, expected)
        if expected == self.model.end:
            assert self.log.append(*arguments) == self.model.append(entry)
            self.after_append()
        else:
            with pytest.raises(pylog.WrongEndOffsetError) as caught:
                self.log.append(*arguments)
            assert caught.value.end_offset == self.model.end

    # ---- what happens to a log ------------------------------------------------------------------

    @rule()
    def flush(self):
        self.since_flush()

    @rule(part=parts)
    def delete_before(self, part):
        offset = self.place(part)
        self.since_flush()
        self.log.delete_before(offset)
        self.model.delete_before(offset)
        self.lives.append(snapshot(self.log))

    @rule()
    def reopen(self):
        self.log.close()
        self.log = pylog.Log(self.path, compression=self.compression)
        assert self.log.recovered is None
        self.since_flush()

    @rule(batch=batches, is_alone=st.booleans())
    def append_and_be_killed(self, batch, is_alone):
        """By another process; with `is_alone` nobody else has the log open then."""
        def live():
            log = pylog.Log(self.path)
            for entry in batch:
                log.append(entry.value, entry.key, entry.headers, entry.timestamp)
            return log

        if is_alone:
            self.log.close()
        killed(live)
        self.model.append(*batch)
        if is_alone:
            self.log = pylog.Log(self.path, compression=self.compression)
            assert self.log.recovered.reason == "killed"
        self.since_flush()

    @rule(seed=st.integers(0, 1 << 32), inode_is_kept=st.booleans())
    def power_cut(self, seed, inode_is_kept):
        floor = self.lives[-1].durable_floor
        if not self.is_fsync and floor > self.model.durable:
            self.since_flush()          # the housekeeper flushed meanwhile
        image = self.folder / f"image{self.images}"
        lives = self.lives[-1:] if self.is_fsync else self.lives
        reboot_image(random.Random(seed), image, lives, inode_is_kept)
        self.images += 1
        self.log.close()
        self.path, self.log = image, pylog.Log(image, compression=self.compression)
        found = self.log.recovered
        assert found.cut_offset >= self.model.durable
        self.model.cut(found.cut_offset, found.next_offset)
        self.model.start = max(self.model.start, self.log.start_offset)
        self.since_flush()

    # ---- out ------------------------------------------------------------------------------------

    @rule(part=parts, stop=parts)
    def read(self, part, stop):
        start, stop = self.place(part), self.place(stop)
        assert read_as_model(self.log.read(start, stop=stop)) == self.model.read(start, stop)

    @rule(part=parts, count=st.integers(1, 50))
    def fetch(self, part, count):
        start = self.place(part)
        chunk = self.log.fetch(start, max_records=count)
        expected = self.model.read(start)[:len(chunk)]
        assert read_as_model(chunk) == expected
        assert (len(chunk) > 0) == bool(self.model.read(start))
        assert chunk.values() == [entry.value for _, entry in expected]
        assert chunk.keys() == [entry.key for _, entry in expected]
        assert chunk.offsets.tolist() == [offset for offset, _ in expected]
        assert chunk.timestamps.tolist() == [entry.timestamp for _, entry in expected]

    @rule(part=parts)
    def get(self, part):
        offset = self.place(part)
        entry = self.model.entries.get(offset)
        if entry is not None:
            assert read_as_model([self.log.get(offset)]) == [(offset, entry)]
        else:
            with pytest.raises(pylog.OffsetError):
                self.log.get(offset)

    @rule(timestamp=st.integers(NOW - 1, NOW + 1001))
    def offset_for_time(self, timestamp):
        assert self.log.offset_for_time(timestamp) == self.model.first_at(timestamp)

    @rule(part=parts)
    def batches(self, part):
        start = self.place(part)
        records = [record for batch in self.log.batches(start)
                   for record in _native.decode_records(batch)]
        assert read_as_model(r for r in records if r.offset >= start) == self.model.read(start)

    @rule()
    def read_by_another(self):
        with pylog.Log(self.path, mode="r") as reader:
            assert read_as_model(reader.read()) == self.model.read(self.model.start)

    @invariant()
    def offsets_agree(self):
        assert (self.log.start_offset, self.log.end_offset) == (self.model.start, self.model.end)
        assert self.log.readable_offset == self.model.end
        assert self.log.durable_offset >= self.model.durable

    def teardown(self):
        if not hasattr(self, "log"):
            return
        try:
            assert read_as_model(self.log.read()) == self.model.read(self.model.start)
            self.log.close()
            report = pylog.check(self.path)
            assert report.ok, report        # notices may be: of what a recovery set aside
            with pylog.Log(self.path) as log:
                assert log.recovered is None
                assert read_as_model(log.read()) == self.model.read(self.model.start)
        finally:
            self.log.close()
            shutil.rmtree(self.folder)


@pytest.fixture(autouse=True)
def folders(tmp_path, caplog):
    """Where the machine, which has no fixtures, may make its logs: in memory unless fsync."""
    memory = Path("/dev/shm")

    def make_folder(durability):
        place = memory if os.access(memory, os.W_OK) and durability != "fsync" else tmp_path
        return Path(tempfile.mkdtemp(prefix="pylog-model-", dir=place))

    caplog.set_level(logging.ERROR, "pylog")    # recoveries are what happens here all the time
    pytest.make_folder = make_folder
    yield
    del pytest.make_folder


LogMachine.TestCase.settings = settings(max_examples=250, stateful_step_count=30, deadline=None)
TestLog = pytest.mark.slow(LogMachine.TestCase)

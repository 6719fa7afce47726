"""Recovery, case by case: what is believed after a kill, a reboot, a copy; and how often."""

import shutil
import time

import pytest
from children import killed
from faults import adopt_control, flip, forget_boot, rewrite_meta

import pylog
from pylog import _native


def values_of(log):
    return [record.value for record in log.read()]


def append_and_die(path, values, flush_after=0, **options):
    """Appends in a process that is killed. The first `flush_after` records are flushed; if there
    are such, then the last batch is still open: its housekeeper seals it after 100 ms, and where a
    busy machine let it, all is done again."""
    def live():
        log = pylog.Log(path, **options)
        for number, value in enumerate(values, 1):
            log.append(value)
            if number == flush_after:
                log.flush()
        return log

    for _ in range(50):
        killed(live)
        if not flush_after or pylog.check(path).records < len(values):
            return
        shutil.rmtree(path)
    pytest.fail("the last batch was sealed each time")


def test_killed_log_opens_with_all_that_was_appended(log_path):
    append_and_die(log_path, [b"a", b"b"])

    with pylog.Log(log_path) as log:
        assert (log.recovered.reason, log.recovered.is_lossy) == ("killed", False)
        assert values_of(log) == [b"a", b"b"]
        assert log.append(b"c") == 2
    with pylog.Log(log_path) as log:
        assert log.recovered is None
        assert values_of(log) == [b"a", b"b", b"c"]


def test_killed_log_that_is_opened_and_closed_is_tidy(log_path):
    append_and_die(log_path, [b"a", b"b"])

    with pylog.Log(log_path) as log:
        assert log.recovered.reason == "killed"
    with pylog.Log(log_path) as log:
        assert log.recovered is None
        assert values_of(log) == [b"a", b"b"]


def test_reader_of_a_killed_log_sees_all_and_changes_nothing(log_path):
    append_and_die(log_path, [b"a", b"b"])
    before = {path.name: path.read_bytes() for path in log_path.iterdir()}

    with pylog.Log(log_path, mode="r") as log:
        assert values_of(log) == [b"a", b"b"]

    assert {path.name: path.read_bytes() for path in log_path.iterdir()} == before


def test_rebooted_log_goes_on_at_an_offset_never_used(log_path):
    append_and_die(log_path, [b"a", b"b"], flush_after=1)
    forget_boot(log_path)

    with pylog.Log(log_path) as log:
        found = log.recovered
        assert (found.reason, found.is_lossy, found.cut_offset) == ("scanned", True, 1)
        assert log.append(b"c") == found.next_offset == 1 << 24
        with pytest.raises(pylog.RecordNotFoundError) as caught:
            log.get(1)
        assert caught.value.next_offset == 1 << 24
        assert values_of(log) == [b"a", b"c"]


def test_rebooted_fsync_log_goes_on_where_it_ended(log_path):
    append_and_die(log_path, [b"a", b"b"], durability="fsync")
    forget_boot(log_path)

    with pylog.Log(log_path) as log:
        assert (log.recovered.reason, log.recovered.is_lossy) == ("scanned", False)
        assert values_of(log) == [b"a", b"b"]
        assert log.append(b"c") == 2
        assert log.get(2).leader_epoch == 1


def test_closed_log_that_lived_through_a_reboot_lost_nothing(log_path):
    with pylog.Log(log_path) as log:
        log.append_many([b"a"] * 100)
    forget_boot(log_path)

    with pylog.Log(log_path) as log:
        assert (log.recovered.is_lossy, log.recovered.next_offset) == (False, 100)
        assert log.append(b"b") == 100


def test_copy_of_a_live_log_is_scanned(log_path, tmp_path):
    with pylog.Log(log_path) as log:
        log.append_many([b"a"] * 10)
        for number in range(50):
            sealed = values_of(log)
            log.append(b"in the open batch")
            copied = shutil.copytree(log_path, tmp_path / f"copy{number}")
            if log.stats()["sealed_offset"] == len(sealed):    # no housekeeper was quicker
                break

        with pylog.Log(copied) as copy:
            assert copy.recovered.reason == "scanned"
            assert values_of(copy) == sealed
            assert copy.append(b"b") > log.append(b"c")


def test_copy_of_a_closed_log_is_tidy(log_path, tmp_path):
    with pylog.Log(log_path) as log:
        log.append_many([b"a"] * 10)
    shutil.copytree(log_path, tmp_path / "copy")

    with pylog.Log(tmp_path / "copy") as copy:
        assert copy.recovered is None
        assert values_of(copy) == [b"a"] * 10


def test_damage_below_the_durable_floor_is_refused(log_path):
    append_and_die(log_path, [b"%d" % i * 100 for i in range(10)], flush_after=5)
    forget_boot(log_path)
    flip(log_path / "00000000000000000000.log", 8 * 100)

    with pytest.raises(pylog.CorruptRecordError) as caught:
        pylog.Log(log_path)

    assert (caught.value.position, caught.value.offset) == (0, 0)


def test_damage_above_the_durable_floor_is_a_torn_tail(log_path):
    append_and_die(log_path, [b"%d" % i * 100 for i in range(10)], flush_after=5)
    forget_boot(log_path)

    with pylog.Log(log_path) as log:
        assert log.recovered.cut_offset == 5
        assert values_of(log) == [b"%d" % i * 100 for i in range(5)]
    assert [path.name[:28] for path in log_path.glob("*.cut-*")] \
        == ["00000000000000000000.log.cut"]


@pytest.mark.parametrize("durability", ["interval", "fsync"])
def test_open_batch_that_outlived_a_kill_is_not_promised_to_be_on_disk(log_path, durability):
    for _ in range(50):
        append_and_die(log_path, [b"value"], durability="interval", flush_interval_ms=86_400_000)
        if durability == "fsync":
            # As if killed between the append and the flush that it waits for.
            rewrite_meta(log_path, lambda text: text.replace("durability 1", "durability 2"))
        killed(lambda: pylog.Log(log_path))     # recovers, and dies before anything is sealed
        if pylog.check(log_path).records == 0:
            break
        shutil.rmtree(log_path)                 # the housekeeper of one of the two was quicker
    with pylog.Log(log_path, mode="r") as reader:
        seen = values_of(reader)
    forget_boot(log_path)

    with pylog.Log(log_path) as log:
        assert log.recovered.cut_offset == 0
        assert durability != "fsync" or seen == []      # else a reader saw what is gone now


def test_interval_log_flushes_what_a_killed_process_left_unsealed(log_path):
    pylog.Log(log_path, durability="interval", flush_interval_ms=5).close()
    append_and_die(log_path, [b"a", b"b"])

    with pylog.Log(log_path) as log:    # which only reads: nobody appends, and so repairs
        assert log.recovered.reason == "killed"
        for _ in range(3000):
            if log.durable_offset == 2:
                break
            time.sleep(0.01)
        assert log.durable_offset == 2
        assert values_of(log) == [b"a", b"b"]


def test_what_a_killed_writer_began_before_a_roll_costs_nothing_behind_it(log_path):
    values = [b"%d" % i * 1000 for i in range(10)]
    with pylog.Log(log_path, segment_bytes=4096, durability="fsync") as log:
        for value in values:
            log.append(value)
    first = log_path / "00000000000000000000.log"
    size = first.stat().st_size
    with open(first, "ab") as file:         # no room for the next record: the segment was rolled
        file.write((4).to_bytes(8) + bytes(4) + b"the length would have been written last")
    rewrite_meta(log_path, lambda text: text.replace("durable_end 10", "durable_end 0"))
    (log_path / "control").unlink()
    forget_boot(log_path)

    with pylog.Log(log_path) as log:
        assert (log.recovered.reason, log.recovered.cut_bytes) == ("scanned", 0)
        assert values_of(log) == values
    assert first.stat().st_size == size
    assert not list(log_path.glob("*.cut-*"))


def test_creation_that_was_killed_before_its_log_meta_is_done_again(log_path):
    with pylog.Log(log_path):
        pass
    (log_path / "log.meta").unlink()

    with pylog.Log(log_path, segment_bytes=4096) as log:
        assert log.append(b"first") == 0
    (log_path / "log.meta").unlink()
    with pytest.raises(pylog.UnsupportedFormatError):      # but not where there are records
        pylog.Log(log_path)


def test_recovery_that_was_itself_cut_is_repeated(log_path):
    append_and_die(log_path, [b"%d" % i * 1000 for i in range(20)], flush_after=9,
                   segment_bytes=4096)
    forget_boot(log_path)
    meta, control = (log_path / "log.meta").read_bytes(), (log_path / "control").read_bytes()
    killed(lambda: pylog.Log(log_path))
    (log_path / "log.meta").write_bytes(meta)   # the new one did not reach the disk
    (log_path / "control").write_bytes(control)
    adopt_control(log_path)

    with pylog.Log(log_path) as log:
        assert log.recovered.next_offset == 1 << 24
        assert values_of(log) == [b"%d" % i * 1000 for i in range(log.recovered.cut_offset)]
        assert log.recovered.cut_offset >= 9


def test_batches_of_epochs_too_old_to_be_listed_stay_readable(log_path):
    with pylog.Log(log_path):
        pass
    batches = [_native.encode_batch([b"%d" % i], base_offset=i, leader_epoch=i)
               for i in range(1024)]
    (log_path / "00000000000000000000.log").write_bytes(b"".join(batches))
    epochs = "".join(f"epoch {i} {i}\n" for i in range(1024))
    rewrite_meta(log_path, lambda text: text.replace("epoch 0 0\n", epochs)
                 .replace("clean_end 0", "clean_end 1024"))
    forget_boot(log_path)

    with pylog.Log(log_path) as log:
        assert log.append(b"1024") == 1024
        assert values_of(log) == [b"%d" % i for i in range(1025)]
    assert "epoch 0 0\n" not in (log_path / "log.meta").read_text()
    forget_boot(log_path)
    with pylog.Log(log_path) as log:
        assert values_of(log) == [b"%d" % i for i in range(1025)]


def test_batch_of_an_epoch_that_its_offset_does_not_have_is_refused(log_path):
    with pylog.Log(log_path) as log:
        log.append_many([b"a"])
    batch = _native.encode_batch([b"foreign"], base_offset=1, leader_epoch=7)
    with open(log_path / "00000000000000000000.log", "ab") as file:
        file.write(batch)
    forget_boot(log_path)

    with pylog.Log(log_path) as log:
        assert "epoch" in log.recovered.why
        assert (log.recovered.cut_offset, log.recovered.batches_beyond) == (1, 0)
        assert values_of(log) == [b"a"]


def test_offset_lost_twice_is_still_never_reused(log_path):
    seen = set()
    for life in range(4):
        append_and_die(log_path, [b"life %d" % life] * 3)
        with pylog.Log(log_path, mode="r") as log:
            now = {record.offset for record in log.read() if record.value == b"life %d" % life}
        assert len(now) == 3
        assert not seen & now
        seen |= now
        forget_boot(log_path)
    with pylog.Log(log_path) as log:
        assert log.append(b"last") not in seen


@pytest.mark.parametrize("suffix", ["index", "timeindex"])
@pytest.mark.parametrize("damage", [
    lambda data: data + bytes(4), lambda data: data + bytes(24), lambda data: bytes(len(data)),
    lambda data: data[:-5], lambda data: data[:24] + bytes(24) + data[48:],
    lambda data: data[:24], lambda data: b"",
], ids=["half an entry", "zeros behind", "all zeros", "cut short", "zeros within", "older",
        "empty"])
def test_index_that_a_power_cut_tore_is_written_anew(log_path, suffix, damage):
    with pylog.Log(log_path, segment_bytes=65_536, index_interval_bytes=0) as log:
        for time in range(600):
            log.append(bytes(500), timestamp=time)
            log.flush()
    indexes = sorted(log_path.glob(f"*.{suffix}"))
    wholes = [index.read_bytes() for index in indexes]
    for index, whole in zip(indexes, wholes, strict=True):
        index.write_bytes(damage(whole))
    forget_boot(log_path)

    with pylog.Log(log_path) as log:
        assert log.recovered.reason == "scanned"

    assert pylog.check(log_path).findings == []
    assert [index.read_bytes() for index in indexes] == wholes
    assert len(indexes) > 2


@pytest.mark.parametrize("more", [0, 1, 3, 20])
def test_last_records_are_found_across_skipped_offsets(log_path, more):
    append_and_die(log_path, [b"%d" % i for i in range(700)], flush_after=690)
    forget_boot(log_path)

    with pylog.Log(log_path) as log:
        assert log.recovered.next_offset == 1 << 24
        log.append_many([b"new %d" % i for i in range(more)])
        everything = values_of(log)
        for count in (1, 2, 10, 100, len(everything), len(everything) + 1, 1 << 70):
            last = [record.value for record in log.read(-count)]
            assert last == everything[-min(count, len(everything)):]


def test_last_records_of_an_empty_log_are_none(log_path):
    with pylog.Log(log_path) as log:
        assert list(log.read(-10)) == []
        assert log.resolve(-10) == 0


def test_last_records_end_at_the_start(log_path):
    with pylog.Log(log_path) as log:
        log.append_many([b"a", b"b", b"c"])
        log.delete_before(1)

        assert log.resolve(-10) == 1


@pytest.mark.parametrize("suffix", ["index", "timeindex"])
def test_index_that_was_deleted_is_made_anew_by_the_next_writer(log_path, suffix):
    with pylog.Log(log_path, segment_bytes=65_536) as log:
        for _ in range(600):
            log.append(bytes(500), timestamp=1)
    indexes = sorted(log_path.glob(f"*.{suffix}"))
    wholes = [index.read_bytes() for index in indexes]
    indexes[1].unlink()

    with pylog.Log(log_path) as log:
        log.append(b"value", timestamp=1)

    assert [index.read_bytes() for index in indexes[:-1]] == wholes[:-1]
    assert pylog.check(log_path).findings == []

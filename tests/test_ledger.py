"""Ledgers: what a killed producer left is true, and what is no ledger is not taken for one."""

import os
import random
import resource
import signal
import struct
import time

import pytest
from children import in_child, killed

import pylog
from pylog import _native, errors
from pylog.stress.settlement import minus

LAYOUT = _native.ledger_layout()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "producer-0"


def entered(path):
    ledger = _native.Ledger(path, 9, 0)
    ledger.enter()
    return ledger


def acknowledged(ledger):
    """The sequences that were: by the ledger's own word."""
    spans = [(start, end) for start, end, _ in ledger.spans]
    return [n for start, end in minus([(0, ledger.settled)], spans) for n in range(start, end)]


def test_new_ledger_knows_nothing(path):
    ledger = _native.Ledger(path, 9, 4)

    assert (ledger.run, ledger.producer, ledger.incarnation, ledger.pid) == (9, 4, 0, 0)
    assert (ledger.sent, ledger.settled, ledger.spans) == (0, 0, [])
    assert (ledger.next, ledger.records, ledger.rounds) == (0, 0, 0)
    assert ledger.enter() == 1
    assert ledger.pid == os.getpid()


def test_call_is_sent_before_and_settled_after(path):
    ledger = entered(path)

    assert ledger.begin(3) == 0
    assert (ledger.sent, ledger.settled) == (3, 0)
    ledger.acknowledge()
    assert (ledger.sent, ledger.settled) == (3, 3)
    assert ledger.begin(2) == 3
    assert acknowledged(ledger) == [0, 1, 2]


def test_doubts_of_a_kind_that_meet_are_one_span(path):
    ledger = entered(path)
    for kind in (True, True, False, False, True):
        ledger.begin(2)
        ledger.doubt(is_failed=kind)
    ledger.begin(1)
    ledger.acknowledge()
    ledger.begin(1)
    ledger.doubt(is_failed=True)

    assert ledger.spans == [(0, 4, True), (4, 8, False), (8, 10, True), (11, 12, True)]
    assert acknowledged(ledger) == [10]
    assert ledger.acknowledged == 1


def test_doubt_about_nothing_is_no_span(path):
    ledger = entered(path)
    ledger.doubt()
    ledger.begin(0)
    ledger.doubt(is_failed=True)
    ledger.begin(1)
    ledger.acknowledge()
    ledger.doubt()

    assert ledger.spans == []
    assert acknowledged(ledger) == [0]
    assert ledger.acknowledged == 1


@pytest.mark.parametrize(("count", "is_in"), [(0, []), (1, [2]), (3, [2, 3, 4]), (9, [2, 3, 4])])
def test_call_that_raised_halfway_has_its_first_records_acknowledged(path, count, is_in):
    ledger = entered(path)
    ledger.begin(2)
    ledger.acknowledge()
    ledger.begin(3)
    ledger.acknowledge(count)
    ledger.doubt(is_failed=True)

    assert acknowledged(ledger) == [0, 1, *is_in]
    assert ledger.settled == ledger.sent == 5


def test_call_that_is_withdrawn_was_never_sent(path):
    ledger = entered(path)
    ledger.begin(2)
    ledger.acknowledge()
    for _ in range(3):
        assert ledger.begin(5) == 2
        ledger.withdraw()

    assert (ledger.sent, ledger.settled, ledger.spans) == (2, 2, [])
    ledger.begin(1)
    ledger.doubt()
    ledger.withdraw()    # what is settled stays so
    assert ledger.spans == [(2, 3, False)]
    assert ledger.begin(1) == 3


def test_send_each_leaves_the_record_that_raised_in_flight(path):
    ledger = entered(path)
    taken = []

    def append(value, key=None):
        if value == b"bad":
            raise errors.LogError("no")
        taken.append((value, key))

    with pytest.raises(errors.LogError):
        ledger.send_each(append, [b"a", b"b", b"bad", b"c"], [None, b"k", None, None])

    assert taken == [(b"a", None), (b"b", b"k")]
    assert (ledger.sent, ledger.settled) == (3, 2)


# ---- deaths ------------------------------------------------------------------------------------


def die_in_flight(path):
    ledger = entered(path)
    ledger.begin(2)
    ledger.acknowledge()
    ledger.begin(3)
    return ledger


def die_settled(path):
    ledger = entered(path)
    ledger.begin(5)
    ledger.acknowledge()
    return ledger


def die_withdrawn(path):
    ledger = die_settled(path)
    ledger.begin(2)
    ledger.withdraw()


def die_in_doubt(path):
    ledger = die_in_flight(path)
    ledger.doubt(is_failed=True)
    return ledger


@pytest.mark.parametrize(("die", "spans"), [
    (die_in_flight, [(2, 5, False)]), (die_settled, []), (die_in_doubt, [(2, 5, True)]),
    (die_withdrawn, []),
])
def test_what_a_killed_producer_had_in_flight_is_in_doubt(path, die, spans):
    killed(lambda: die(path))
    before = _native.Ledger(path)
    assert (before.sent, before.incarnation) == (5, 1)

    ledger = _native.Ledger(path, 9, 0)
    assert ledger.enter() == 2
    assert (ledger.spans, ledger.settled, ledger.begin(1)) == (spans, 5, 5)
    assert before.spans == spans    # it sees the same bytes


def append_for_ever(log_path, path):
    """Single and many, with a doubt now and then; never ends by itself."""
    ledger, rng = entered(path), random.Random(os.getpid())
    with pylog.Log(log_path) as log:
        while True:
            count = rng.choice([1, 1, 1, 40])
            first = ledger.begin(count)
            values, _ = _native.stamp_values(9, 0, ledger.incarnation, first, [60] * count)
            if rng.random() < 0.1:
                ledger.doubt(is_failed=rng.random() < 0.5)
                continue
            log.append_many(values) if count > 1 else log.append(values[0])
            ledger.acknowledge()


@pytest.mark.slow
def test_no_kill_makes_a_record_falsely_acknowledged(log_path, path, rng):
    pylog.Log(log_path).close()
    number = sent = 0
    while number < 20 or sent < 2000:    # on a busy machine most die before they begin
        pid = os.fork()
        if pid == 0:
            try:
                append_for_ever(log_path, path)
            finally:
                os._exit(1)
        time.sleep(rng.uniform(0.005, 0.03) * (1 + number // 20))
        os.kill(pid, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        sent = _native.Ledger(path).sent if path.exists() else 0
        number += 1

    ledger = _native.Ledger(path)
    with pylog.Log(log_path) as log:
        there = [_native.read_stamp(record.key, record.value)["sequence"] for record in log.read()]
    assert there == sorted(set(there)), "one writer, in order"
    assert set(acknowledged(ledger)) <= set(there)
    failed = {n for start, end, is_failed in ledger.spans if is_failed for n in range(start, end)}
    assert failed.isdisjoint(there)
    assert set(there) <= set(range(ledger.sent))
    assert len(there) > 1000


def rewrite(path, **words):
    """Words of the file as a death between two stores leaves them."""
    with open(path, "r+b") as file:
        for name, value in words.items():
            place, form = (LAYOUT["spans"], "=QQQ") if name == "spans" else (
                LAYOUT[name], "=I" if name in ("spanCount", "layout", "producer") else "=Q")
            file.seek(place)
            file.write(struct.pack(form, *value) if name == "spans" else struct.pack(form, value))


@pytest.mark.parametrize(("words", "spans"), [
    ({"sent": 9, "settled": 4, "spans": (4, 9, 1)}, [(4, 9, False)]),
    ({"sent": 9, "settled": 4, "spans": (4, 9, 1), "spanCount": 1}, [(4, 9, True)]),
    ({"sent": 9, "settled": 9, "spans": (4, 9, 1), "spanCount": 1}, [(4, 9, True)]),
    ({"sent": 9, "settled": 6, "spans": (4, 6, 2), "spanCount": 1}, [(4, 9, False)]),
    ({"sent": 9, "settled": 6, "spans": (4, 6, 1), "spanCount": 1}, [(4, 6, True), (6, 9, False)]),
    ({"sent": 9, "settled": 6, "spans": (4, 9, 2), "spanCount": 1}, [(4, 9, False)]),
], ids=["before the count", "before the settlement", "done", "before a span is longer",
        "before a second span", "after a span is longer"])
def test_doubt_that_was_half_done_is_completed(path, words, spans):
    entered(path)
    rewrite(path, **words)

    ledger = _native.Ledger(path, 9, 0)
    ledger.enter()

    assert (ledger.spans, ledger.settled, ledger.sent) == (spans, 9, 9)


# ---- limits and hostile files ------------------------------------------------------------------


def doubt_often(ledger, times, skipped=0):
    """So many spans: kinds that meet and differ make a new one each."""
    for number in range(skipped, skipped + times):
        ledger.begin(1)
        ledger.doubt(is_failed=number % 2 == 0)


def test_ledger_grows_with_its_spans_and_who_has_it_open_sees_them(path):
    ledger = entered(path)
    reader = _native.Ledger(path)
    doubt_often(ledger, 5 * _native.LEDGER_SPANS)

    size = path.stat().st_size
    assert size in [_native.LEDGER_BYTES << n for n in range(8)]
    assert path.stat().st_blocks * 512 >= size, "a hole: a full disk would be a SIGBUS"
    assert size < 4 * 24 * 5 * _native.LEDGER_SPANS
    assert reader.spans == ledger.spans == _native.Ledger(path).spans
    assert len(ledger.spans) == 5 * _native.LEDGER_SPANS
    assert acknowledged(ledger) == []


def test_ledger_that_cannot_grow_now_tries_again_and_then_says_so(path):
    def fill():
        ledger = entered(path)
        own = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (_native.LEDGER_BYTES, own[1]))
        doubt_often(ledger, _native.LEDGER_SPANS)    # half of them after the first refusal
        ledger.begin(1)
        with pytest.raises(errors.DiskFullError):
            ledger.doubt()
        assert (ledger.settled, ledger.sent) == (_native.LEDGER_SPANS, _native.LEDGER_SPANS + 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, own)
        ledger.doubt()
        return len(ledger.spans)

    assert in_child(fill) == _native.LEDGER_SPANS + 1


def test_doubt_too_many_is_an_error_and_settles_nothing(path):
    entered(path)
    count = _native.LEDGER_SPANS_MAX
    path.write_bytes(path.read_bytes().ljust(_native.LEDGER_BYTES_MAX, b"\0"))
    rewrite(path, spanCount=count, sent=5, settled=5)
    ledger = _native.Ledger(path, 9, 0)
    ledger.begin(1)

    with pytest.raises(errors.ResourceLimitError, match=f"room for {count} doubts"):
        ledger.doubt()
    with pytest.raises(errors.ResourceLimitError, match="room for"):
        _native.Ledger(path, 9, 0).enter()
    assert (ledger.sent, ledger.settled) == (6, 5)


@pytest.mark.parametrize("data", [
    b"", b"x", b"plLEDGER", bytes(100), bytes(_native.LEDGER_BYTES - 1),
    bytes(_native.LEDGER_BYTES_MAX + 1), bytes(_native.LEDGER_BYTES),
    b"plLEDGEr".ljust(_native.LEDGER_BYTES, b"\0"), b"\xff" * _native.LEDGER_BYTES,
    b"plLEDGER".ljust(_native.LEDGER_BYTES, b"\0"),
], ids=["empty", "a byte", "magic", "short", "too short", "too long", "zero", "other magic", "ones",
        "no layout"])
@pytest.mark.parametrize("run", [0, 9])
def test_file_that_is_no_ledger_is_refused_and_left_alone(path, data, run):
    path.write_bytes(data)

    with pytest.raises(errors.UnsupportedFormatError, match="remove it"):
        _native.Ledger(path, run, 0)
    assert path.read_bytes() == data


@pytest.mark.parametrize("words", [
    {"spanCount": _native.LEDGER_SPANS + 1}, {"spanCount": 2**32 - 1}, {"settled": 1},
    {"sent": 5, "settled": 2**64 - 1}, {"layout": 2}, {"layout": 0},
])
def test_damaged_ledger_is_refused(path, words):
    entered(path)
    rewrite(path, **words)

    for run in (0, 9):
        with pytest.raises(errors.UnsupportedFormatError):
            _native.Ledger(path, run, 0)


@pytest.mark.parametrize(("run", "producer"), [(8, 0), (9, 1), (2**64 - 1, 2**32 - 1)])
def test_ledger_of_another_run_or_producer_is_refused(path, run, producer):
    entered(path).begin(1)

    with pytest.raises(errors.ConfigurationError, match="belongs to"):
        _native.Ledger(path, run, producer)
    assert _native.Ledger(path).sent == 1


def test_ledger_to_be_read_must_exist(path):
    with pytest.raises(errors.LogError):
        _native.Ledger(path)
    assert not path.exists()


@pytest.mark.parametrize("action", [
    lambda ledger: ledger.enter(), lambda ledger: ledger.begin(1),
    lambda ledger: ledger.acknowledge(), lambda ledger: ledger.doubt(),
    lambda ledger: ledger.withdraw(), lambda ledger: ledger.note(1, 2, 3),
    lambda ledger: ledger.send_each(print, [b"x"]),
])
def test_ledger_opened_to_be_read_is_not_written(path, action):
    entered(path)
    before = path.read_bytes()

    with pytest.raises(errors.IllegalStateError, match="to be read"):
        action(_native.Ledger(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize("arguments", [(-1, 0), (1 << 64, 0), (1, -1), (1, 1 << 32), ("1", 0)])
def test_impossible_numbers_are_refused(path, arguments):
    with pytest.raises((OverflowError, TypeError)):
        _native.Ledger(path, *arguments)
    assert not path.exists()


@pytest.mark.parametrize("count", [-1, 1 << 64])
def test_impossible_count_is_refused(path, count):
    ledger = entered(path)
    for call in (ledger.begin, ledger.acknowledge):
        with pytest.raises(OverflowError):
            call(count)
    assert (ledger.sent, ledger.settled) == (0, 0)


@pytest.mark.parametrize("place", ["missing/ledger", "", "x" * 5000])
def test_place_that_cannot_be_is_an_error(tmp_path, place):
    with pytest.raises(errors.PylogError):
        _native.Ledger(tmp_path / place, 9, 0)

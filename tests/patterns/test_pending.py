"""Pending: which letters no mark names, counted by what was appended since the last look."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pylog
from pylog import Admin
from pylog.patterns import DeadLetters, Queue, pending
from pylog.patterns.letter import bury
from pylog.patterns.pending import Pending, all_letters

DLQ = "x-dlq"


def mark(broker, text, partition=0, value=None):
    broker.append(DLQ, value, headers=[("__dlq.mark.of", text), ("__dlq.mark", b"replayed")],
                  partition=partition)


@pytest.fixture
def looks(monkeypatch):
    """A list that grows by each record that is looked at."""
    found = []
    monkeypatch.setattr(pending, "is_mark",
                        lambda record, is_mark=pending.is_mark: found.append(1) or is_mark(record))
    return found


@pytest.fixture
def record(broker):
    broker.append("orders", b"one")
    return next(broker.read("orders"))


def test_a_count_looks_at_what_came_since_the_last_one(broker, record, looks):
    with Queue(broker, "emails") as emails:
        for count in (3, 0, 2):
            for _ in range(count):
                bury(broker, emails.dlq, record, ValueError("bad"))
            looks.clear()
            stats = emails.stats()
            assert len(looks) == count
        DeadLetters(broker, topic=emails.dlq).discard(f"{emails.dlq}:0:1")
        assert (stats.dead, emails.stats().dead) == (5, 4)


def test_the_first_letter_is_found_without_a_look_at_the_others(broker, record, looks):
    broker.create_topic(DLQ)
    for _ in range(100):
        bury(broker, DLQ, record, ValueError("bad"))
    letters = DeadLetters(broker, topic=DLQ)
    letters.discard([f"{DLQ}:0:0"])
    looks.clear()

    assert [one.id for one in letters.list(limit=1)] == [f"{DLQ}:0:1"]
    assert len(looks) == 1    # the mark


def test_a_topic_that_is_made_anew_is_read_anew(broker, record):
    broker.create_topic(DLQ)
    found = Pending(broker, DLQ)
    for _ in range(3):
        bury(broker, DLQ, record, ValueError("bad"))
    assert len(found) == 3

    broker.delete_topic(DLQ)
    assert len(found) == 0
    assert DLQ not in broker.topics()    # nobody makes it for a look
    broker.create_topic(DLQ)
    bury(broker, DLQ, record, ValueError("bad"))

    assert len(found) == 1


def test_new_partitions_count(broker, record):
    broker.create_topic(DLQ)
    found = Pending(broker, DLQ)
    assert len(found) == 0
    Admin(broker).create_partitions({DLQ: 3})
    broker.append(DLQ, b"letter", partition=2)

    assert [(one.partition, one.offset) for one in found] == [(2, 0)]


@pytest.mark.parametrize("is_marked", [False, True])
def test_what_retention_takes_while_letters_are_read_is_passed_over(broker, is_marked):
    broker.create_topic(DLQ)
    for _ in range(3000):
        broker.append(DLQ, b"letter" * 200)
    letters = all_letters(broker, DLQ) if is_marked else iter(Pending(broker, DLQ))
    next(letters)
    broker.log(DLQ).delete_before(2990)

    *_, last = letters
    assert last.offset == 2999 if not is_marked else last.id == f"{DLQ}:0:2999"


STEPS = st.lists(st.one_of(
    st.tuples(st.just("bury"), st.integers(0, 1)),
    st.tuples(st.just("mark"), st.integers(0, 1), st.integers(0, 1), st.integers(0, 9)),
    st.tuples(st.just("nonsense"), st.integers(0, 1),
              st.sampled_from([b"", b"0", b"5:1", b"-1:0", b"0:-1", b"a:b", b"0:" + b"9" * 30])),
    st.tuples(st.just("delete"), st.integers(0, 1), st.integers(0, 9)),
    st.tuples(st.just("look"))), max_size=30)


@settings(max_examples=60)
@given(STEPS)
def test_what_is_pending_is_what_no_mark_names(tmp_path_factory, steps):
    letters, marked = set(), set()
    with pylog.Broker(tmp_path_factory.mktemp("pending")) as broker:
        broker.create_topic(DLQ, 2)
        kept = Pending(broker, DLQ)
        for step, *rest in steps:
            if step == "bury":
                letters.add((rest[0], broker.append(DLQ, b"letter", partition=rest[0]).offset))
            elif step == "mark":
                mark(broker, b"%d:%d" % tuple(rest[1:]), rest[0])
                marked.add(tuple(rest[1:]))
            elif step == "nonsense":
                mark(broker, rest[1], rest[0])
            elif step == "delete":
                len(kept)    # marks may be among what goes
                log = broker.log(DLQ, rest[0])
                log.delete_before(min(rest[1], log.end_offset))
                letters = {(one, offset) for one, offset in letters
                           if offset >= broker.log(DLQ, one).start_offset}
            else:
                assert len(kept) == len(letters - marked)

        assert [(one.partition, one.offset) for one in kept] == sorted(letters - marked)
        assert all((place in kept) == (place not in marked) for place in letters)

"""DeadLetters: looked at, sent again, discarded; by several at once; nothing vanishes."""

import dataclasses
import shutil
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from children import killed
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import Diary, Party
from waiting import until

import pylog
from pylog.patterns import DeadLetters, Queue, Retry, Topic
from pylog.patterns.letter import bury, parse_id

DLQ = "dlq.billing.orders"


@pytest.fixture(scope="module")
def kept(tmp_path_factory, data_template):
    """A broker with the six letters, only to be looked at."""
    path = shutil.copytree(data_template, tmp_path_factory.mktemp("letters") / "data")
    with pylog.Broker(path) as broker:
        fill(broker)
        yield DeadLetters(broker, "billing")


@pytest.fixture
def buried(broker):
    """The same, to be changed."""
    fill(broker)
    return DeadLetters(broker, "billing")


def fill(broker):
    """Six letters of the group "billing", of three kinds of errors and two handlers."""
    broker.create_topic(DLQ, configs={"retention.ms": -1})
    for number in range(6):
        broker.append("orders", b"%d" % number, key=b"k%d" % number, partition=number % 3,
                      headers=[("n", b"%d" % number)])
    errors = [ValueError("bad"), KeyError("worse"), pylog.DeserializationError("worst")]
    for number, record in enumerate(sorted(broker.read("orders"), key=lambda one: one.value)):
        bury(broker, DLQ, record, errors[number % 3], attempts=number + 1, group="billing",
             handler="charge" if number < 3 else "mail")


def values(letters):
    return [letter.value for letter in letters]


def test_a_letter_of_a_topic_that_was_deleted_settles_none_of_the_next_of_its_name(
        broker, buried):
    old = buried.list()
    broker.delete_topic(DLQ)
    time.sleep(0.002)
    fill(broker)

    assert buried.replay(old[0]) == buried.discard(old[1]) == 0
    assert len(buried.list()) == 12


# ---- looking


@pytest.mark.parametrize(("wanted", "found"), [
    ({}, "012345"),
    ({"error": "ValueError"}, "03"),
    ({"error": "pylog.errors.DeserializationError"}, "25"),
    ({"error": "DeserializationError"}, "25"),
    ({"error": "errors"}, ""),
    ({"handler": "mail"}, "345"),
    ({"topic": "orders"}, "012345"),
    ({"topic": "refunds"}, ""),
    ({"limit": 2}, "01"),
    ({"limit": 0}, ""),
    ({"error": "KeyError", "limit": 1}, "1"),
    ({"since": 0}, "012345"),
    ({"since": datetime.now(UTC) + timedelta(days=1)}, ""),
    ({"since": datetime.now(UTC) - timedelta(days=1)}, "012345"),
])
def test_letters_are_chosen_by_what_they_say(kept, wanted, found):
    assert values(kept.list(**wanted)) == [one.encode() for one in found]


@pytest.mark.parametrize(("wanted", "error"), [
    ({"limit": -1}, pylog.ConfigurationError),
    ({"since": datetime(2026, 1, 1)}, pylog.ConfigurationError),
    ({"since": "yesterday"}, TypeError),
    ({"since": True}, TypeError),
])
def test_choices_that_make_no_sense(kept, wanted, error):
    with pytest.raises(error):
        kept.list(**wanted)


def test_letter_is_shown_pending_or_not(buried):
    letter = buried.list()[4]

    assert buried.show(letter.id) == letter
    buried.discard(letter)
    assert buried.show(letter.id) == dataclasses.replace(letter, mark="discarded")


@pytest.mark.parametrize(("letter", "error"), [
    ("dlq.billing.orders:0:99", pylog.RecordNotFoundError),
    ("dlq.billing.orders:7:0", pylog.RecordNotFoundError),
    ("orders:0:0", pylog.RecordNotFoundError),
    ("no-topic:0:0", pylog.RecordNotFoundError),
    ("", pylog.ConfigurationError),
    ("17", pylog.ConfigurationError),
    ("dlq.billing.orders:0", pylog.ConfigurationError),
    ("dlq.billing.orders:0:-1", pylog.ConfigurationError),
    ("dlq.billing.orders:0:1:2", pylog.ConfigurationError),
    ("dlq.billing.orders:٣:0", pylog.ConfigurationError),
    ("dlq.billing.orders:0:" + "9" * 30, pylog.ConfigurationError),
    (17, TypeError),
    (None, TypeError),
])
def test_ids_of_no_letter(kept, letter, error):
    with pytest.raises(error):
        kept.show(letter)


@given(st.text(max_size=30))
def test_no_text_is_more_than_refused_as_an_id(text):
    try:
        topic, partition, offset = parse_id(text)
    except pylog.ConfigurationError:
        return
    assert topic
    assert partition >= 0 <= offset


def test_groups_whose_names_run_together_are_told_apart(broker):
    record = next(broker.read("one", "earliest"), None) or (
        broker.append("one", b"x"), next(broker.read("one")))[1]
    broker.create_topic("dlq.a.b.c")
    bury(broker, "dlq.a.b.c", record, ValueError(), group="a")
    bury(broker, "dlq.a.b.c", record, KeyError(), group="a.b")

    assert [one.error for one in DeadLetters(broker, "a").list()] == ["ValueError"]
    assert [one.error for one in DeadLetters(broker, "a.b").list()] == ["KeyError"]
    assert len(DeadLetters(broker).list()) == 2


def test_topics_are_those_of_a_group_or_all_by_their_names(broker):
    for name in ("dlq.g.a", "dlq.g.b", "dlq.h.a", "refunds-dlq", "dlqs"):
        broker.create_topic(name)

    assert DeadLetters(broker, "g").topics() == ["dlq.g.a", "dlq.g.b"]
    assert DeadLetters(broker).topics() == ["dlq.g.a", "dlq.g.b", "dlq.h.a", "refunds-dlq"]
    assert DeadLetters(broker, topic="dlqs").topics() == ["dlqs"]
    with pytest.raises(pylog.UnknownTopicOrPartitionError):
        DeadLetters(broker, topic="gone").list()
    with pytest.raises(pylog.ConfigurationError, match="a group or a topic, not both"):
        DeadLetters(broker, "g", topic="dlqs")


def test_what_others_wrote_into_a_topic_of_letters_is_shown_as_far_as_it_says(broker):
    broker.create_topic("x-dlq")
    broker.append("x-dlq", b"plain", headers=[("h", b"v")])
    broker.append("x-dlq", b"odd", headers=[
        ("__dlq.errors.partition", b"many"), ("__dlq.errors.offset", b"9" * 50),
        ("__dlq.errors.topic", b"\xff"), ("__dlq.errors.group", None)])
    broker.append("x-dlq", None, headers=[("__dlq.mark.of", b"0:one"), ("__dlq.mark", b"replayed")])
    broker.append("x-dlq", None, headers=[("__dlq.mark.of", None), ("__dlq.mark", b"replayed")])
    broker.append("x-dlq", b"a value", headers=[("__dlq.mark.of", b"0:0")])

    plain, odd, *rest = DeadLetters(broker, topic="x-dlq").list()

    assert (plain.value, plain.topic, plain.partition, plain.error) == (b"plain", "", -1, "")
    assert plain.headers == (("h", b"v"),)
    assert (odd.topic, odd.partition, odd.offset) == ("\ufffd", -1, -1)
    assert [one.value for one in rest] == [None, b"a value"]


# ---- doing


def test_replay_sends_the_record_to_where_it_was_and_marks_the_letter(buried, broker):
    letter = buried.list()[1]

    assert buried.replay(letter) == 1

    record = list(broker.read("orders", partition=1))[-1]
    assert (record.key, record.value) == (b"k1", b"1")
    assert record.headers == (
        ("n", b"1"), ("__replay.of", letter.id.encode()), ("__replay.count", b"1"),
        ("__replay.group", b"billing"), ("__replay.handler", b"charge"))
    assert len(buried.list()) == 5
    assert buried.show(letter.id).mark == "replayed"
    assert values(buried.list(marked=True)) == [b"%d" % n for n in range(6)]


def test_replay_is_done_once_and_discarded_letters_stay(buried, broker):
    letters = buried.list()
    buried.discard(letters[0].id)

    assert buried.replay(letters) == 5
    assert buried.replay(letters) == 0
    assert buried.discard(letters) == 0
    assert Counter(record.value for record in broker.read("orders")) == Counter(
        {b"0": 1} | {b"%d" % n: 2 for n in range(1, 6)})


def test_replay_to_another_topic_is_for_everybody_there(buried, broker):
    buried.replay(buried.list(limit=1), to="one")

    [record] = broker.read("one")
    assert [name for name, _ in record.headers] == ["n", "__replay.of", "__replay.count"]


def test_replay_edits_and_leaves_out(buried, broker):
    def edit(letter):
        if letter.value == b"0":
            return None
        return dataclasses.replace(letter, value=b"edited " + letter.value, headers=())

    assert buried.replay(buried.list(limit=2), edit=edit) == 1

    record = list(broker.read("orders", partition=1))[-1]
    assert record.value == b"edited 1"
    assert record.header("n") is None
    assert values(buried.list(limit=1)) == [b"0"]


def test_replay_is_no_faster_than_its_rate(buried):
    began = time.monotonic()
    buried.replay(buried.list(), rate=100)

    assert time.monotonic() - began >= 0.06


def test_replay_to_a_topic_that_is_gone_names_the_way_out(buried, broker):
    broker.delete_topic("orders")
    with pytest.raises(pylog.UnknownTopicOrPartitionError, match="name another with to="):
        buried.replay(buried.list())

    assert "orders" not in broker.topics()
    assert len(buried.list()) == 6


def test_partition_that_a_topic_no_longer_has_is_chosen_by_the_key(buried, broker):
    letters = buried.list()
    broker.delete_topic("orders")
    broker.create_topic("orders", 1)

    assert buried.replay(letters) == 6
    assert len(list(broker.read("orders"))) == 6


@pytest.mark.parametrize(("rate", "error"), [
    (0, pylog.ConfigurationError), (-1, pylog.ConfigurationError),
    (float("nan"), pylog.ConfigurationError), ("x", TypeError), (True, TypeError)])
def test_rates_that_are_none(kept, rate, error):
    with pytest.raises(error, match="rate"):
        kept.replay(kept.list(), rate=rate)

    assert len(kept.list()) == 6


@pytest.mark.parametrize("act", ["discard", "replay"])
def test_records_of_an_ordinary_topic_get_no_marks(broker, act):
    for value in (b"1", b"2"):
        broker.append("orders", value)
    broker.create_topic("elsewhere")
    letters = DeadLetters(broker, topic="orders")
    with pytest.raises(pylog.ConfigurationError, match=r"orders:\d:0 is no dead letter"):
        letters.discard(letters.list()) if act == "discard" \
            else letters.replay(letters.list(), to="elsewhere")

    assert sorted(record.value for record in broker.read("orders")) == [b"1", b"2"]
    assert list(broker.read("elsewhere")) == []


def test_letters_that_others_wrote_are_letters_where_the_topic_says_so(broker):
    broker.append("orders-dlq", b"1", headers=[("original-topic", b"orders")])
    letters = DeadLetters(broker, topic="orders-dlq")

    assert letters.discard(letters.list()) == 1
    assert letters.list() == []


def test_a_class_of_errors_may_be_asked_for(buried):
    assert buried.list(error=ValueError) == buried.list(error="ValueError") != []
    assert buried.list(error=OSError) == []


@pytest.mark.parametrize(("call", "words"), [
    (lambda letters: letters.list(error=5), "error must be a str, not int"),
    (lambda letters: letters.list(topic=b"orders"), "topic must be a str, not bytes"),
    (lambda letters: letters.replay(None), "expected a Letter, its id, or several"),
    (lambda letters: letters.discard(5), "expected a Letter, its id, or several"),
    (lambda letters: letters.replay(letters.list(), edit=lambda letter: {"total": 5}),
     "edit returned dict, and must return a Letter"),
])
def test_calls_that_mean_nothing_are_told(buried, call, words):
    before = buried.list()
    with pytest.raises(TypeError, match=words):
        call(buried)

    assert buried.list() == before


@pytest.mark.parametrize("letters", [5, [5], None, [None]])
def test_what_is_no_letter_cannot_be_replayed(kept, letters):
    with pytest.raises(TypeError):
        kept.replay(letters)


def test_an_edit_that_fails_leaves_the_letter_pending(buried):
    with pytest.raises(ZeroDivisionError):
        buried.replay(buried.list(), edit=lambda letter: 1 / 0)

    assert len(buried.list()) == 6


def test_replay_is_for_the_group_and_the_handler_that_failed(broker):
    """Three groups and one without; the letters of one are replayed, and that one alone has them
    again."""
    seen = {name: [] for name in ("g", "h", None)}
    is_mended = False

    def act(record, name):
        seen[name].append(record.value)
        if name == "g" and not is_mended:
            raise ValueError

    with Topic(broker, "one", value="str") as topic:
        for name in seen:
            topic.subscribe(lambda record, name=name: act(record, name), group=name)
        for value in "ab":
            topic.publish(value)
        until(lambda: all(len(values) == 2 for values in seen.values()))
        letters = DeadLetters(broker, "g")
        until(lambda: len(letters.list()) == 2)
        is_mended = True
        letters.replay(letters.list())
        topic.publish("c")
        until(lambda: all("c" in values for values in seen.values()))

    assert seen == {"g": ["a", "b", "a", "b", "c"], "h": ["a", "b", "c"], None: ["a", "b", "c"]}
    assert letters.list() == []


def test_replay_that_fails_again_is_a_letter_again_with_its_attempts_from_one(broker):
    with Topic(broker, "one") as topic:
        topic.publish(b"a")
        with topic.subscribe(lambda record: 1 / 0, group="g", retry=Retry(2, 0)) as subscription:
            letters = DeadLetters(broker, "g")
            for number in range(1, 4):
                until(lambda number=number: subscription.stats().buried == number)
                [letter] = letters.list()
                assert letter.attempts == 2
                assert dict(letter.headers).get("__replay.count", b"0") == b"%d" % (number - 1)
                letters.replay(letter)


# ---- by several


def test_two_who_replay_at_once_send_each_letter_once(buried, broker, tmp_path):
    path, letters, counts = broker.path, buried.list(), Diary(tmp_path / "counts")

    def replay():
        with pylog.Broker(path) as other:
            counts.write(DeadLetters(other, "billing").replay(letters, rate=500))

    others = [Party(replay) for _ in range(2)]
    counts.write(buried.replay(letters, rate=500))
    for party in others:
        party.wait()

    assert sum(map(int, counts.lines())) == 6
    assert Counter(record.value for record in broker.read("orders")) == Counter(
        {b"%d" % n: 2 for n in range(6)})


def test_replay_that_was_killed_between_sending_and_marking_is_done_again(buried, broker):
    path = broker.path

    def send_and_die():
        other = pylog.Broker(path)
        append = other.append

        def append_and_stop(topic, *record):
            done = append(topic, *record)
            return done if topic.startswith("dlq.") else 1 / 0

        other.append = append_and_stop
        letters = DeadLetters(other, "billing")
        try:
            letters.replay(letters.list())
        except ZeroDivisionError:
            return other

    killed(send_and_die)

    assert len(buried.list()) == 6
    assert buried.replay(buried.list()) == 6
    assert Counter(record.value for record in broker.read("orders"))[b"0"] == 3


@settings(max_examples=12)
@given(st.lists(st.tuples(st.sampled_from(["bury", "replay", "discard"]), st.integers(0, 9)),
                min_size=5, max_size=25))
def test_letters_are_as_the_model_says(tmp_path_factory, steps):
    """The model: a list of what became of each letter, and a count of what was sent."""
    with pylog.Broker(tmp_path_factory.mktemp("model") / "data") as broker:
        broker.append("orders", b"x")
        broker.create_topic(DLQ)
        record = next(broker.read("orders"))
        letters = DeadLetters(broker, "billing")
        marks, ids = [], []
        for step, number in steps:
            if step == "bury":
                bury(broker, DLQ, record, ValueError(str(len(marks))), group="billing")
                marks.append(None)
                ids.append(letters.list()[-1].id)
            elif number < len(marks):
                act = letters.replay if step == "replay" else letters.discard
                assert act(ids[number]) == (marks[number] is None)
                marks[number] = marks[number] or f"{step}ed"
        assert [one.mark for one in letters.list(marked=True)] == marks
        assert [one.message for one in letters.list()] == [
            str(number) for number, mark in enumerate(marks) if mark is None]
        assert broker.log("orders").end_offset == 1 + marks.count("replayed")


@pytest.mark.parametrize("value", [None, "json", dict], ids=str)
def test_who_reads_letters_gets_no_marks(broker, value):
    broker.create_topic("failed")
    broker.append("orders", b"{}")
    [record] = broker.read("orders")
    for _ in range(2):
        bury(broker, "failed", record, ValueError("bad"))
    letters = DeadLetters(broker, topic="failed")
    letters.discard(letters.list(limit=1))
    seen, taken = [], []

    with Topic(broker, "failed", value=value) as failed:
        with failed.subscribe(seen.append, group="looks") as looks:
            bury(broker, "failed", record, ValueError("bad"))
            until(lambda: len(seen) == 3)
        assert [one.offset for one in failed.read()] == [0, 1, 3]
    with Queue(broker, "failed", value=value) as queue:
        queue.work(lambda delivery: taken.append(delivery.offset), idle=0.05)

    assert [one.offset for one in seen] == taken == [0, 1, 3]
    assert looks.stats().buried == 0

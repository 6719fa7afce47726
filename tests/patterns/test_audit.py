"""Audit: what was recorded can be found, and whatever is changed afterwards is found, too."""

import builtins
import contextlib
import csv
import io
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
from children import in_child
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import until

import pylog
from pylog import Broker
from pylog._native import crc32c
from pylog.patterns import Audit, Bus, DeadLetters, Head, audit, inflow
from pylog.patterns.chain import FIRST, link


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


@pytest.fixture
def trail(broker):
    return Audit(broker)


def fill(trail, count=10):
    return [trail.record(actor=f"u{n % 3}", action=("user.renamed", "order.paid")[n % 2],
                         target=f"t{n}", before=n, after=n + 1) for n in range(count)]


# ---- recorded


def test_an_entry_says_who_what_when_before_after_and_why(trail):
    now = datetime.now(UTC)
    given = trail.record(actor="ann", action="user.renamed", target="user-7", reason="asked for it",
                         before={"name": "Bob"}, after={"name": "Rob"}, ticket=17)

    [found] = trail.query()
    assert found == given
    assert (found.actor, found.action, found.target) == ("ann", "user.renamed", "user-7")
    assert (found.before, found.after) == ({"name": "Bob"}, {"name": "Rob"})
    assert (found.reason, found.data["ticket"]) == ("asked for it", 17)
    assert abs(found.time - now) < timedelta(minutes=1)
    assert trail.verify() is None


def test_the_chain_goes_through_all_processes_and_threads(broker, trail):
    def act(name):
        for n in range(50):
            trail.record(actor=name, action="a", after=n)

    threads = [threading.Thread(target=act, args=(f"thread{n}",)) for n in range(3)]
    for one in threads:
        one.start()
    in_child(lambda: [record_in(broker.path, n) for n in range(5)] and None)
    for one in threads:
        one.join()
    trail.record_many([{"actor": "many", "action": "a", "after": n} for n in range(2500)])

    assert trail.verify() is None
    for name, count in (("thread0", 50), ("thread2", 50), ("child", 5), ("many", 2500)):
        assert [one.after for one in trail.query(actor=name)] == list(range(count))


def record_in(path, n):
    with Audit(path) as other:
        return other.record(actor="child", action="a", after=n).offset


def test_two_who_record_in_turn_go_on_from_each_other(broker, trail):
    other = Audit(broker)
    for n in range(20):
        (trail, other)[n % 2].record(actor="a", action="a", after=n)
    other.record_many([{"actor": "a", "action": "a"}] * 3)
    trail.record(actor="a", action="a")

    assert trail.verify() is None
    assert trail.head() == other.head()
    assert trail.head().offset == 23


def test_an_entry_of_a_log_that_waits_for_the_disk_is_chained_too(tmp_path):
    with Broker(tmp_path / "data", durability="fsync") as broker:
        trail, other = Audit(broker), Audit(broker)
        for n in range(4):
            (trail, other)[n % 2].record(actor="a", action="a", after=n)

        assert trail.verify() is None


def test_without_msgspec_the_same_bytes_are_made(broker, trail, monkeypatch):
    original = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.startswith("msgspec"):
            raise ModuleNotFoundError(name)
        return original(name, *arguments, **keywords)

    said = {"actor": "ä", "action": "a", "target": "t", "reason": "", "more": "x",
            "before": [1, 2.5, None, True, "\n\"ü\u2028"], "after": {"b": {"c": []}}}
    trail.record(**said)
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", without)
        plain = Audit(broker)
    plain.record(**said)

    first, second = broker.read("audit")
    assert first.value == second.value
    assert trail.verify() is None
    with pytest.raises(pylog.SerializationError, match="is no JSON"):
        plain.record(actor="a", action="a", after=float("nan"))


# ---- found again


def test_queries_choose_by_actor_action_target_and_time(broker):
    clock = [1000.0]
    trail = Audit(broker, clock=lambda: clock[0])
    for n in range(10):
        clock[0] = 1000.0 + n
        trail.record(actor=f"u{n % 2}", action=f"user.{'ab'[n % 2]}.x" if n > 4 else "user.c",
                     target=f"t{n % 3}" if n % 3 else None)

    def found(**wanted):
        return [one.offset for one in trail.query(**wanted)]

    def at(seconds):
        return datetime.fromtimestamp(seconds, UTC)

    assert found() == list(range(10))
    assert found(actor="u1") == [1, 3, 5, 7, 9]
    assert found(action="user.*") == [0, 1, 2, 3, 4]
    assert found(action="user.b.*") == [5, 7, 9]
    assert found(action="user.**", target="t2") == [2, 5, 8]
    assert found(since=at(1003)) == list(range(3, 10))
    assert found(until=at(1003)) == [0, 1, 2]
    assert found(since=at(1003), until=at(1005), actor="u1") == [3]
    assert found(since=at(99999)) == found(target="t9") == found(actor="") == []


def test_what_is_no_entry_is_passed_over_by_queries_and_found_by_verify(broker, trail):
    fill(trail, 2)
    for value in (b"{", b"[1]", None, b"\xff", b'{"action": 5}'):
        broker.append("audit", value)

    assert [one.offset for one in trail.query()] == [0, 1]
    assert trail.verify()[:2] == (2, "foreign")


def test_exports_hold_what_was_recorded(trail):
    trail.record(actor="ann", action="a.b", target="t", before={"x": 1}, after=[], ticket=7,
                 reason='"why", so')
    trail.record(actor="bob", action="a.c")
    lines, table = io.StringIO(), io.StringIO()

    assert trail.export(lines) == trail.export(table, "csv") == 2
    assert trail.export(io.StringIO(), "csv", actor="bob") == 1
    assert trail.export(io.StringIO(), actor="nobody") == 0

    first, second = map(json.loads, lines.getvalue().splitlines())
    assert (first["actor"], first["before"], first["ticket"]) == ("ann", {"x": 1}, 7)
    assert (second["offset"], second["hash"]) == (1, trail.head().hash)
    head, one, two = csv.reader(io.StringIO(table.getvalue()))
    assert head == ["offset", "time", *audit.FIELDS, "more", "hash"]
    assert one[2:9] == ["ann", "a.b", "t", '{"x":1}', "[]", '"why", so', '{"ticket":7}']
    assert two[2:9] == ["bob", "a.c", "", "", "", "", ""]


# ---- tampered with


def forged(broker, records, name="forged"):
    """An audit trail of these: as one who can write the files would make it."""
    broker.create_topic(name, 1)
    log = broker.log(name)
    for timestamp, key, value, headers in records:
        log.append(value, key, headers, timestamp)
    return Audit(broker, name)


def contents(broker, topic="audit"):
    return [[one.timestamp, one.key, one.value, list(one.headers)] for one in broker.read(topic)]


@pytest.mark.parametrize("name", ["offset", "time", "hash"])
def test_an_entry_does_not_say_where_and_when_it_was_recorded(broker, trail, name):
    with pytest.raises(pylog.ConfigurationError, match=f"an entry cannot say its {name}"):
        trail.record(actor="eve", action="a.b", **{name: "1999"})
    assert trail.head() is None
    broker.append("audit", json.dumps({"actor": "eve", "action": "a.b", name: "1999"}).encode())

    file = io.StringIO()
    trail.export(file)

    assert "1999" not in file.getvalue()


def test_a_true_copy_is_no_forgery(broker, trail):
    fill(trail)

    assert forged(broker, contents(broker)).verify(head=trail.head()) is None


def alter_value(entries, at):
    entries[at][2] = entries[at][2].replace(b'"actor":"u', b'"actor":"v')


def alter_key(entries, at):
    entries[at][1] = (entries[at][1] or b"") + b"!"


def alter_timestamp(entries, at):
    entries[at][0] += 1


def alter_hash(entries, at):
    entries[at][3][1] = ("chain_hash", bytes(32))


def alter_previous(entries, at):
    entries[at][3][0] = ("chain_previous", b"1" * 64)


def add_header(entries, at):
    entries[at][3].append(("note", b"harmless"))


def drop_hashes(entries, at):
    del entries[at][3][:]


def swap_headers(entries, at):
    entries[at][3].reverse()


def remove(entries, at):
    del entries[at]


def double(entries, at):
    entries.insert(at, entries[at])


def swap(entries, at):
    entries[at], entries[at + 1] = entries[at + 1], entries[at]


def insert(entries, at):
    """A whole entry, with hashes that fit what is before it."""
    previous = entries[at - 1][3][1][1] if at else FIRST
    value = b'{"actor":"mallory","action":"a"}'
    entries.insert(at, [7, None, value, [
        ("chain_previous", previous), ("chain_hash", link(previous, 7, None, value))]])


def alter_with_its_hash(entries, at):
    alter_value(entries, at)
    timestamp, key, value, headers = entries[at]
    headers[1] = ("chain_hash", link(headers[0][1], timestamp, key, value))


# What is done at an entry; which is the first that then does not fit, counted from it; how.
TAMPERINGS = [
    (alter_value, 0, "altered"), (alter_key, 0, "altered"), (alter_timestamp, 0, "altered"),
    (alter_hash, 0, "altered"), (alter_previous, 0, "altered"), (add_header, 0, "altered"),
    (drop_hashes, 0, "foreign"), (swap_headers, 0, "foreign"), (remove, 0, "displaced"),
    (double, 1, "displaced"), (swap, 0, "displaced"), (insert, 1, "displaced"),
    (alter_with_its_hash, 1, "displaced"),
]


@pytest.mark.parametrize(("tamper", "later", "kind"), TAMPERINGS,
                         ids=[one.__name__ for one, *_ in TAMPERINGS])
def test_the_first_entry_that_was_tampered_with_is_found(broker, trail, tamper, later, kind):
    fill(trail)
    for at in (0, 4, 8):
        entries = contents(broker)
        tamper(entries, at)

        found = forged(broker, entries, f"forged{at}").verify()

        assert found[:2] == (at + later, kind)
        assert found.message


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_change_is_found_with_the_head_that_was_known(tmp_path_factory, data):
    with Broker(tmp_path_factory.mktemp("chain") / "data") as broker:
        trail = Audit(broker)
        fill(trail, data.draw(st.integers(1, 8)))
        truth = contents(broker)
        entries = contents(broker)
        for _ in range(data.draw(st.integers(1, 3))):
            tamper = data.draw(st.sampled_from([one for one, *_ in TAMPERINGS if one is not swap]))
            with contextlib.suppress(IndexError):    # of an entry without hashes
                tamper(entries, data.draw(st.integers(0, max(0, len(entries) - 1))))
        del entries[data.draw(st.integers(0, len(entries))):]

        found = forged(broker, entries).verify(head=trail.head())

        if found is None:    # what was known is there; others may have gone on from it
            assert entries[:len(truth)] == truth
        else:
            assert entries != truth


def test_an_end_that_was_cut_off_is_found_by_who_knows_a_head(broker, trail):
    fill(trail)
    cut = forged(broker, contents(broker)[:7])

    assert cut.verify() is None
    assert cut.verify(head=cut.head()) is None
    assert cut.verify(head=trail.head())[:2] == (9, "cut")


def test_a_chain_that_was_made_anew_is_found_by_who_knows_a_head(broker, trail):
    fill(trail)
    again = Audit(broker, "again")
    for one in trail.query():
        again.record(**{**one.data, "actor": "u9"})

    assert again.verify() is None
    assert again.verify(head=str(trail.head()))[:2] == (9, "rewritten")


def test_a_beginning_that_was_deleted_is_found(broker, trail):
    fill(trail)
    broker.log("audit").delete_before(3)

    assert trail.verify()[:2] == (3, "displaced")
    assert trail.verify(start=4) is None


def changed(path, old, new):
    """The only segment of a trail, with some bytes replaced, in place."""
    whole = bytearray(path.read_bytes())
    place = whole.index(old)
    whole[place:place + len(new)] = new
    with open(path, "r+b") as file:
        file.write(whole)
    return whole


def test_a_byte_changed_in_the_file_is_told(tmp_path):
    with Broker(tmp_path / "data") as broker:
        trail = Audit(broker)
        fill(trail)
        broker.log("audit").roll()    # what is sealed has a checksum
        changed(tmp_path / "data" / "audit-0" / f"{0:020}.log", b'"before":4', b'"before":7')

        assert trail.verify().kind == "unreadable"


def test_a_byte_changed_with_the_checksum_made_right_is_found(tmp_path):
    with Audit(tmp_path / "data") as trail:
        fill(trail)
    path = tmp_path / "data" / "audit-0" / f"{0:020}.log"
    whole = changed(path, b'"before":4', b'"before":7')
    size = 12 + int.from_bytes(whole[8:12], "big")
    changed(path, whole[17:21], crc32c(bytes(whole[21:size])).to_bytes(4, "big"))

    with Audit(tmp_path / "data") as trail:
        assert [one.before for one in trail.query()][4] == 7
        assert trail.verify()[:2] == (4, "altered")


def test_a_part_can_be_verified_and_progress_is_told(broker, trail, monkeypatch):
    monkeypatch.setattr(audit, "PROGRESS_RECORDS", 3)
    fill(trail)
    entries = contents(broker)
    alter_value(entries, 6)
    other, told = forged(broker, entries), []

    assert other.verify(stop=6, progress=lambda *much: told.append(much)) is None
    assert told == [(3, 6), (6, 6), (6, 6)]
    assert other.verify(start=8) is None
    assert other.verify(start=6)[:2] == other.verify(5, 8)[:2] == (6, "altered")
    assert other.verify(start=7) is None    # what is before is trusted


def test_a_head_before_the_part_that_is_verified_is_looked_at_by_itself(broker, trail):
    fill(trail)
    heads = [Head(one.offset, one.hash) for one in trail.query()]
    entries = contents(broker)
    alter_value(entries, 3)
    other = forged(broker, entries)

    assert trail.verify(start=7, head=heads[3]) is None
    assert trail.verify(start=7, head=Head(3, "0" * 64))[:2] == (3, "rewritten")
    assert other.verify(start=7, head=heads[2]) is None
    assert other.verify(start=7, head=heads[3])[:2] == (3, "altered")
    broker.append("forged", b"bare")
    assert other.verify(start=11, head=f"10:{'0' * 64}")[:2] == (10, "foreign")
    broker.log("audit").delete_before(5)
    assert trail.verify(start=7, head=heads[3])[:2] == (3, "cut")
    assert trail.verify(start=7, head=heads[5]) is None


def test_a_head_that_is_not_before_stop_is_refused(trail):
    fill(trail)

    assert trail.verify(stop=10, head=trail.head()) is None
    for stop in (9, 5, 0):
        with pytest.raises(pylog.ConfigurationError, match="leave stop out, or say 10"):
            trail.verify(stop=stop, head=trail.head())


def test_an_empty_trail_has_no_head_and_is_whole(trail):
    assert trail.head() is None
    assert trail.verify() is None
    assert list(trail.query()) == []
    assert trail.verify(head=f"0:{'0' * 64}")[:2] == (0, "cut")


# ---- fed by a bus


def test_an_event_that_was_emitted_twice_is_recorded_twice_with_its_id(broker, trail):
    with Bus(broker, "shop") as bus, trail.feed(bus, "user.*"):
        for _ in range(2):
            bus.emit("user.login", key="123", event_id="e1", source="web")
        until(lambda: trail.head() and trail.head().offset == 1)

    assert [one.data["event"] for one in trail.query()] == ["e1", "e1"]
    assert trail.verify() is None


def test_events_of_a_bus_become_entries_by_wildcard(broker, trail):
    with Bus(broker, "shop") as bus:
        with trail.feed(bus, "user.*"):
            bus.emit("user.login", {"ip": "1.2.3.4"}, key="123", event_id="e1", source="web")
            bus.emit("order.paid", {})
            bus.emit("user.deleted", {"reason": "GDPR"}, subject="users/123")
            until(lambda: len(list(trail.query())) == 2)

    first, second = trail.query()
    assert (first.actor, first.action, first.target, first.after, first.data["event"]) == (
        "web", "user.login", "123", {"ip": "1.2.3.4"}, "e1")
    assert (second.actor, second.target) == ("shop", "users/123")
    assert trail.verify() is None


def test_what_is_recorded_of_an_event_can_be_said(broker, trail):
    with Bus(broker, "shop") as bus:
        for user in ("ann", "", None):
            bus.emit("user.login", {"user": user})
        with trail.feed(bus, "**", entry=lambda event: (event.data["user"] is not None and
                        {"actor": event.data["user"], "action": "login"}) or None):
            letters = DeadLetters(broker, "audit")
            until(lambda: letters.list())

    assert [one.actor for one in trail.query()] == ["ann"]
    assert [one.error.rpartition(".")[2] for one in letters.list()] == ["ConfigurationError"]


def test_an_event_is_one_entry_however_often_it_is_fed(broker, trail, monkeypatch):
    def fails(self, consumer, partition, offset):
        if consumer.committed(partition) is not None:
            raise InterruptedError
        original(self, consumer, partition, offset)

    original = inflow.Inflow._commit
    with Bus(broker, "shop") as bus:
        for n in range(5):
            bus.emit("a", n)
        monkeypatch.setattr(inflow.Inflow, "_commit", fails)
        with trail.feed(bus, "**") as feed:
            until(lambda: feed.error)
            trail.record(actor="between", action="a")
        monkeypatch.setattr(inflow.Inflow, "_commit", original)
        bus.emit("a", 5)
        with trail.feed(bus, "**"):
            until(lambda: [one.after for one in trail.query(actor="shop")] == list(range(6)))

    assert trail.verify() is None


# ---- bad use


@pytest.mark.parametrize(("said", "error"), [
    ({}, TypeError), ({"actor": "a"}, TypeError), ({"action": "a"}, TypeError),
    ({"actor": "", "action": "a"}, ValueError), ({"actor": None, "action": "a"}, TypeError),
    ({"actor": 7, "action": "a"}, TypeError), ({"actor": "a", "action": ""}, ValueError),
    ({"actor": "a", "action": "a*"}, ValueError), ({"actor": "a", "action": 7}, TypeError),
    ({"actor": "a", "action": ["a"]}, TypeError),
    ({"actor": "a", "action": "a", "target": 7}, TypeError),
    ({"actor": "a", "action": "a", "target": b"t"}, TypeError),
    ({"actor": "a", "action": "a", "reason": 7}, TypeError),
    ({"actor": "a", "action": "a", "before": object()}, pylog.SerializationError),
    ({"actor": "a", "action": "a", "more": object()}, pylog.SerializationError),
    ({"actor": "a", "action": "a", "after": "x" * (1 << 21)}, pylog.MessageSizeTooLargeError),
])
def test_what_is_no_entry_is_refused_and_the_chain_goes_on(trail, said, error):
    fill(trail, 1)
    with pytest.raises(error):
        trail.record(**said)
    with pytest.raises(error):
        trail.record_many([{"actor": "a", "action": "a"}, said])
    trail.record(actor="a", action="a")

    assert trail.head().offset == 1
    assert trail.verify() is None


@pytest.mark.parametrize("head", ["", "0", "x:" + "0" * 64, "0:" + "0" * 63, "0:" + "g" * 64, "-1:"
                                  + "0" * 64, "9" * 30 + ":" + "0" * 64, 7, b"0"])
def test_what_is_no_head_is_refused(trail, head):
    with pytest.raises(ValueError, match="no head of a chain"):
        trail.verify(head=head)


@pytest.mark.parametrize(("partitions", "configs"), [
    (2, {}), (1, {"message.timestamp.type": "LogAppendTime"})])
def test_a_topic_that_cannot_be_a_trail_is_refused(broker, partitions, configs):
    broker.create_topic("other", partitions, configs)

    with pytest.raises(ValueError, match="cannot be an audit trail"):
        Audit(broker, "other")


def test_a_trail_keeps_all_also_in_a_topic_that_did_not(broker):
    broker.create_topic("short", 1, {"retention.ms": 1000})
    trail = Audit(broker, "short")
    assert trail.verify() is None
    assert broker.topic("short").configs["retention.ms"] == "1000"    # who looks changes nothing

    trail.record(actor="ann", action="seen")
    assert broker.topic("short").configs["retention.ms"] == "-1"


def test_unknown_forms_and_filters_are_refused(trail):
    with pytest.raises(ValueError, match="use jsonl or csv"):
        trail.export(io.StringIO(), "xml")
    with pytest.raises(TypeError):
        trail.export(io.StringIO(), who="ann")
    with pytest.raises(ValueError, match="neither a name nor a wildcard"):
        list(trail.query(action="a*"))
    with pytest.raises(TypeError, match="aware datetimes"):
        list(trail.query(since="yesterday"))


def test_entry_without_an_action_is_told_so(trail):
    with pytest.raises(TypeError, match="action must be a str"):
        trail.record_many([{"actor": "ann"}])


def test_two_feeds_of_one_group_are_refused(broker, trail):
    Bus(broker, "shop").close()

    with trail.feed("shop", "user.*"), pytest.raises(pylog.ConfigurationError, match="group="):
        trail.feed("shop", "order.*")

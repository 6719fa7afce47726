"""Groups: members come, go, are killed and stopped; who has what, and what is committed."""

import os
import signal
import threading
import time

import members
import pytest
from chances import assert_once_below
from children import in_child
from members import Worker, at, settle

from pylog.broker import Broker
from pylog.errors import (
    CommitFailedError,
    ConfigurationError,
    FencedInstanceIdError,
    GroupError,
    IllegalStateError,
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    NonEmptyGroupError,
    OffsetMetadataTooLargeError,
    UnknownMemberIdError,
)
from pylog.group import Member, Roster, describe, group_ids
from pylog.subscription_state import make_subscription
from pylog.topic import OffsetAndMetadata

TAKEOVER_S = 0.2


broker = members.six


# ---- coming and going ----------------------------------------------------------------------------

def test_one_member_has_all(broker):
    worker = Worker(broker)
    assert worker.owned == [0, 1, 2, 3, 4, 5]
    assert worker.told == [("assigned", [at(n) for n in range(6)])]


def test_who_joins_gets_a_share_once_it_was_let_go(broker):
    first = Worker(broker)
    second = Worker(broker)
    assert second.owned == []
    assert len(second.member.awaited) == 3
    settle(first, second)
    assert len(first.owned) == len(second.owned) == 3
    assert sorted(first.owned + second.owned) == list(range(6))


def revoked(*workers):
    return [p.partition for w in workers for kind, some in w.told if kind == "revoked"
            for p in some]


def test_partitions_that_stay_are_never_revoked(broker):
    workers = [Worker(broker)]
    for _ in range(5):
        held, before = [set(w.owned) for w in workers], len(revoked(*workers))
        workers.append(Worker(broker))
        settle(*workers)
        assert all(set(w.owned) <= had for w, had in zip(workers, held, strict=False))
        assert len(revoked(*workers)) - before == len(workers[-1].owned) > 0


def test_who_leaves_lets_go_at_once(broker):
    first, second = Worker(broker), Worker(broker)
    settle(first, second)
    second.member.leave()
    settle(first)
    assert first.owned == list(range(6))
    assert second.owned == []


def test_leaving_twice_is_leaving_once(broker):
    worker = Worker(broker)
    worker.member.leave()
    worker.member.leave()
    assert describe(broker.group("g"))["state"] == "Empty"


def test_a_consumer_that_nobody_closed_leaves_when_it_is_forgotten(broker):
    first, second = Worker(broker), Worker(broker)
    settle(first, second)
    del second
    settle(first)
    assert first.owned == list(range(6))


def test_a_member_more_than_partitions_waits_in_reserve(broker):
    workers = [Worker(broker) for _ in range(7)]
    settle(*workers)
    assert sorted(len(w.owned) for w in workers) == [0, 1, 1, 1, 1, 1, 1]


def test_groups_do_not_know_each_other(broker):
    first, second = Worker(broker, "g"), Worker(broker, "h")
    assert first.owned == second.owned == list(range(6))
    assert group_ids(broker.path) == ["g", "h"]


def test_subscribing_something_else_moves_what_is_not_wanted_any_more(broker):
    broker.create_topic("u", 2)
    worker = Worker(broker)
    worker.member.subscribe(make_subscription(["u"], None, None))
    worker.sync()
    assert worker.member.owned == {at(0, "u"), at(1, "u")}
    assert worker.told[1:] == [("revoked", [at(n) for n in range(6)]),
                               ("assigned", [at(0, "u"), at(1, "u")])]


def test_a_pattern_sees_topics_that_come_later(broker):
    worker = Worker(broker, topics=(), pattern="t|orders-.*")
    broker.create_topic("orders-eu", 1)
    broker.create_topic("returns", 1)
    worker.sync()
    assert worker.member.owned == {at(n) for n in range(6)} | {at(0, "orders-eu")}


def test_partitions_that_are_added_are_shared_out(broker):
    first, second = Worker(broker), Worker(broker)
    settle(first, second)
    broker.metadata.add_partitions("t", 8)
    settle(first, second)
    assert len(first.owned) == len(second.owned) == 4


def test_a_topic_that_does_not_exist_yet_is_waited_for(broker):
    worker = Worker(broker, topics=("later",))
    assert worker.owned == []
    broker.create_topic("later", 2)
    worker.sync()
    assert worker.member.owned == {at(0, "later"), at(1, "later")}


def test_what_a_listener_raises_comes_out_and_the_partitions_go_all_the_same(broker):
    first = Worker(broker)
    second = Worker(broker)

    def fail(partitions):
        raise RuntimeError("the listener")
    first._revoked = fail
    with pytest.raises(RuntimeError, match="the listener"):
        first.sync()
    settle(first, second)
    assert sorted(first.owned + second.owned) == list(range(6))


# ---- death ---------------------------------------------------------------------------------------

def in_background(broker, action):
    """Forks a child with a broker of its own; `action(broker, say)`, then it waits to be killed."""
    source, target = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with Broker(broker.path) as own:
                action(own, lambda text: os.write(target, f"{text}\n".encode()))
                while True:
                    time.sleep(60)
        finally:
            os._exit(1)
    os.close(target)
    return pid, os.fdopen(source)


@pytest.fixture
def other(broker):
    """Another process with a worker, which keeps up until it is killed."""
    started = []

    def start(**options):
        def live(own, say):
            worker = Worker(own, **options)
            while True:
                worker.sync()
                say(f"{worker.member.number} {worker.owned}")
                while worker.member.is_current:
                    worker.member.table.wait(worker.member._changes, worker.member._deaths, 1)
        pid, lines = in_background(broker, live)
        started.append((pid, lines))
        return pid, lines
    yield start
    for pid, lines in started:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        lines.close()


def owns_in_the_end(worker, count, seconds=30.0):
    start = time.monotonic()
    while len(worker.owned) != count:
        assert time.monotonic() < start + seconds, f"owns {worker.owned}"
        member = worker.member
        member.table.wait(member._changes, member._deaths, 0.05)
        worker.sync()
    return time.monotonic() - start


def test_what_a_killed_process_had_is_taken_over_at_once(broker, other):
    worker = Worker(broker)
    took = []
    for _ in range(10):
        pid, _ = other()
        owns_in_the_end(worker, 3)
        os.kill(pid, signal.SIGKILL)
        took.append(owns_in_the_end(worker, 6))
        os.waitpid(pid, 0)
    assert min(took) < TAKEOVER_S
    assert all(kind != "lost" for kind, _ in worker.told)


def test_a_stopped_process_keeps_its_partitions(broker, other):
    worker = Worker(broker)
    pid, _ = other()
    owns_in_the_end(worker, 3)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.4)
    worker.sync()
    assert len(worker.owned) == 3


def test_a_process_stopped_for_longer_than_its_session_is_fenced(broker, other):
    worker = Worker(broker)
    pid, _ = other(session_timeout_ms=300)
    owns_in_the_end(worker, 3)
    stopped = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    owns_in_the_end(worker, 6)
    assert time.monotonic() - stopped > 0.15
    os.kill(pid, signal.SIGCONT)
    owns_in_the_end(worker, 3)


def test_a_handler_that_is_slow_keeps_its_partitions(broker):
    # On a busy machine all of a process may stand still for longer than a short session.
    assert any(is_kept_by_who_is_slow(broker, session_ms) for session_ms in (200, 2000))


def is_kept_by_who_is_slow(broker, session_ms):
    group = f"session of {session_ms} ms"

    def work(own, say):
        own.worker = Worker(own, group, session_timeout_ms=session_ms)
        say(own.worker.owned)    # and handles a record for longer than its session
    pid, lines = in_background(broker, work)
    assert lines.readline() == "[0, 1, 2, 3, 4, 5]\n"
    worker = Worker(broker, group)
    deadline = time.monotonic() + 3.5 * session_ms / 1000
    while time.monotonic() < deadline and not worker.owned:
        worker.sync()
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    lines.close()
    return not worker.owned


def test_who_was_fenced_cannot_commit_and_comes_back_as_another(broker):
    worker = Worker(broker)
    worker.commit(0, 5)
    number, group = worker.member.number, broker.group("g")

    generation, roster = group.roster()
    del roster.members[number]
    assert group.table.publish(generation, roster.encode())
    with pytest.raises(UnknownMemberIdError, match="no member"):
        worker.commit(0, 6)
    assert worker.committed(0) == 5
    worker.sync()
    assert worker.told[-2][0] == "lost"
    assert worker.member.number != number
    worker.commit(0, 7)


def test_a_forked_child_is_no_member(broker):
    worker = Worker(broker)
    assert isinstance(in_child(worker.sync), IllegalStateError)
    assert in_child(worker.member.leave) is None
    worker.commit(0, 1)


# ---- static members ------------------------------------------------------------------------------

def test_a_static_member_comes_back_to_what_it_had_and_nobody_else_notices(broker):
    first = Worker(broker)
    static = Worker(broker, instance_id="one")
    settle(first, static)
    held, told = static.owned, list(first.told)
    static.member.leave()
    settle(first)
    again = Worker(broker, instance_id="one")
    settle(first, again)
    assert again.owned == held
    assert first.told == told


def test_a_static_member_that_is_killed_is_waited_for_as_long_as_its_session(broker, other):
    worker = Worker(broker)
    pid, _ = other(instance_id="one", session_timeout_ms=400)
    owns_in_the_end(worker, 3)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    time.sleep(0.15)
    before = time.monotonic()
    worker.sync()
    assert len(worker.owned) == 3
    owns_in_the_end(worker, 6)
    assert time.monotonic() - before > 0.1


def test_the_second_with_an_instance_id_fences_the_first(broker):
    first = Worker(broker, instance_id="one")
    second = Worker(broker, instance_id="one")
    with pytest.raises(FencedInstanceIdError, match="'one'"):
        first.sync()
    assert first.told[-1][0] == "lost"
    second.sync()
    assert second.owned == list(range(6))
    with pytest.raises(FencedInstanceIdError):
        first.sync()
    assert first.owned == []


# ---- offsets -------------------------------------------------------------------------------------

def test_what_one_member_committed_the_next_one_finds(broker):
    worker = Worker(broker)
    worker.commit(3, 17, "a note")
    worker.member.leave()
    assert Worker(broker).member.committed(at(3))[:2] == (17, "a note")


def test_nothing_is_committed_for_a_partition_that_is_not_ours(broker):
    first, second = Worker(broker), Worker(broker)
    settle(first, second)
    mine, theirs = first.owned[0], second.owned[0]
    with pytest.raises(CommitFailedError, match=f"t-{theirs}") as caught:
        first.member.commit({at(mine): OffsetAndMetadata(5), at(theirs): OffsetAndMetadata(6)})
    assert caught.value.partitions == [at(theirs)]
    assert first.committed(mine) == 5
    assert first.committed(theirs) is None


def test_a_commit_goes_through_a_rebalance_that_left_the_partition_where_it_is(broker):
    first = Worker(broker)
    kept = set(first.owned)
    second = Worker(broker)
    _, roster = broker.group("g").roster()
    kept &= {p.partition for p in roster.assignment[first.member.number]}
    for number in kept:
        first.commit(number, 3)
    settle(first, second)
    assert set(first.owned) == kept


def test_a_commit_in_a_rebalance_is_no_step_into_its_generation(broker):
    first = Worker(broker)
    before = first.member.generation
    second = Worker(broker)
    kept = broker.group("g").roster()[1].assignment[first.member.number][0]
    first.commit(kept.partition, 3)
    assert first.member.generation == before    # else two would have a partition in one generation
    settle(first, second)
    assert first.member.generation == second.member.generation > before


def test_a_note_that_is_too_long_commits_nothing(broker):
    worker = Worker(broker)
    with pytest.raises(OffsetMetadataTooLargeError, match="320"):
        worker.commit(0, 1, "x" * 321)
    assert worker.committed(0) is None


def test_what_was_committed_for_a_topic_that_was_made_anew_is_not_believed(broker, monkeypatch):
    worker = Worker(broker)
    worker.commit(0, 100)
    monkeypatch.setattr(worker.member, "_incarnation", lambda partition: 8)
    assert worker.committed(0) is None
    worker.commit(0, 2)
    assert worker.committed(0) == 2


def test_offsets_are_altered_only_where_nobody_reads(broker):
    group, worker = broker.group("g"), Worker(broker)
    worker.commit(0, 5)
    with pytest.raises(NonEmptyGroupError, match="t-0"):
        group.alter_offsets({at(0): OffsetAndMetadata(1)}, {at(0): 7})
    with pytest.raises(NonEmptyGroupError, match="t-0"):
        group.forget([at(0)])
    worker.member.leave()
    group.alter_offsets({at(0): OffsetAndMetadata(1)}, {at(0): 7})
    assert group.committed(at(0), 7).offset == 1
    group.forget([at(0), at(99)])
    assert group.committed(at(0), 7) is None


def test_offsets_of_a_group_whose_members_were_killed_can_be_altered(broker, other):
    pid, lines = other()
    while "5]" not in lines.readline():
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    broker.group("g").alter_offsets({at(0): OffsetAndMetadata(1)}, {at(0): 7})


# ---- bad input -----------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["", "x" * 250, "é" * 100, "\0", "\ud800"])
def test_group_ids_that_cannot_be(broker, name):
    with pytest.raises(InvalidGroupIdError):
        broker.group(name)


@pytest.mark.parametrize("name", [None, 5, b"g"])
def test_group_ids_of_another_type(broker, name):
    with pytest.raises(TypeError, match="group_id"):
        broker.group(name)


@pytest.mark.parametrize("name", ["a/b", "..", ".", "%2F", "groups:1", "mit Leerzeichen", "日本"])
def test_group_ids_that_are_no_file_names_come_back(broker, name):
    Worker(broker, name)
    assert name in group_ids(broker.path)
    assert broker.group(name).table.name == name


def test_members_agree_on_a_strategy(broker):
    Worker(broker, strategy="range").keep = True
    first = Worker(broker, "h", strategy="range")
    with pytest.raises(InconsistentGroupProtocolError, match="'range'"):
        Worker(broker, "h", strategy="roundrobin")
    first.member.leave()
    assert Worker(broker, "h", strategy="roundrobin").owned == list(range(6))


def test_an_unknown_strategy_is_refused(broker):
    with pytest.raises(ConfigurationError, match="eager"):
        Worker(broker, strategy="eager")


def test_every_error_of_groups_is_one():
    assert issubclass(CommitFailedError, GroupError)
    assert issubclass(InvalidGroupIdError, ValueError)


def test_a_roster_comes_back_as_it_was():
    roster = Roster({3: Member((1, 2**63), 17, "c", "range", ["a", "é"], None, 0, "one",
                                5000, None)},
                    {"a": 2}, {3: [at(0, "a"), at(1, "a")]})
    assert Roster.decode(roster.encode()) == roster
    assert Roster.decode(b"") == Roster()


# ---- claims --------------------------------------------------------------------------------------

def test_one_holds_a_claim_at_a_time(broker):
    with broker.claim("job"):
        assert [claim[:] for claim in broker.claims()] == [("job", os.getpid())]
        assert not broker.claim("job").acquire(0)
        assert broker.claim("another").acquire(0)
    assert broker.claims() == []
    assert broker.claim("job").acquire(0)


class Interrupted:
    """A table whose nth change of an owner is interrupted: behind it, or before."""

    def __init__(self, table, nth, is_done):
        self._table, self._left, self._is_done = table, nth, is_done

    def __getattr__(self, name):
        return getattr(self._table, name)

    def own(self, *arguments):
        self._left -= 1
        if self._left or self._is_done:
            done = self._table.own(*arguments)
        if not self._left:
            raise KeyboardInterrupt
        return done


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("is_done", [True, False])
def test_a_claim_that_is_interrupted_is_nobodys(broker, nth, is_done):
    """The process lives on: nobody else would ever have it."""
    claim = broker.claim("job")
    claim._table = Interrupted(claim._table, nth, is_done)
    with pytest.raises(KeyboardInterrupt), claim:
        pass
    if nth == 2:    # in the release, which is done again
        claim.release()
    assert not claim.is_held
    assert broker.claim("job").acquire(0)


def test_who_waits_for_a_claim_is_woken_when_it_is_free(broker):
    def seconds(_):
        held, waited = broker.claim("job"), []
        held.acquire()

        def wait():
            with broker.claim("job"):
                waited.append(time.monotonic())
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        assert not waited
        freed = time.monotonic()
        held.release()
        thread.join()
        return waited[0] - freed

    assert_once_below(TAKEOVER_S, seconds)


def test_a_claim_is_free_when_its_holder_is_killed(broker):
    def hold(own, say):
        claim = own.claim("job")
        claim.acquire()
        say("held")
        while claim.is_held:
            time.sleep(60)

    def seconds(_):
        pid, lines = in_background(broker, hold)
        assert lines.readline() == "held\n"
        claim = broker.claim("job")
        assert claim.holder() == pid
        assert not claim.acquire(0.05)
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        assert claim.acquire(30)
        took = time.monotonic() - killed
        claim.release()
        os.waitpid(pid, 0)
        lines.close()
        return took

    assert_once_below(TAKEOVER_S, seconds)


def test_a_stopped_process_keeps_its_claim(broker):
    def hold(own, say):
        own.held = own.claim("job")
        own.held.acquire()
        say("held")
    pid, lines = in_background(broker, hold)
    assert lines.readline() == "held\n"
    os.kill(pid, signal.SIGSTOP)
    claim = broker.claim("job")
    assert not claim.acquire(0.3)
    assert claim.holder() == pid
    os.kill(pid, signal.SIGKILL)
    assert claim.acquire(5)
    os.waitpid(pid, 0)
    lines.close()


def test_a_claim_that_is_not_free_in_time_says_who_has_it(broker):
    with broker.claim("job"), \
            pytest.raises(TimeoutError, match=f"pid {os.getpid()}"), \
            broker.claim("job", timeout=0.01):
        pass


def test_claiming_twice_with_one_object_is_refused(broker):
    with broker.claim("job") as claim, pytest.raises(IllegalStateError, match="already"):
        claim.acquire()


@pytest.mark.parametrize("name", ["", "x" * 250, "a\0b"])
def test_claims_that_cannot_be(broker, name):
    with pytest.raises(ConfigurationError, match="claim"):
        broker.claim(name)


def test_a_claim_must_be_called_by_a_str(broker):
    with pytest.raises(TypeError, match="bytes"):
        broker.claim(b"job")

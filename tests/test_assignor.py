"""Who gets which partition: each strategy against what it promises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylog.assignor import STRATEGIES, assign, check_strategy
from pylog.errors import ConfigurationError
from pylog.topic import TopicPartition

TOPICS = ["a", "b", "c"]
members_of_groups = st.dictionaries(st.integers(1, 9), st.sets(st.sampled_from(TOPICS)), max_size=6)
counts_of_topics = st.dictionaries(st.sampled_from(TOPICS), st.integers(0, 9))


def partitions(topic, *numbers):
    return [TopicPartition(topic, number) for number in numbers]


def everything(members, counts):
    """All partitions that somebody has subscribed."""
    wanted = set().union(*members.values()) if members else set()
    return sorted(p for topic in wanted for p in partitions(topic, *range(counts.get(topic, 0))))


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(members=members_of_groups, counts=counts_of_topics)
def test_every_partition_has_one_reader_who_wants_it(strategy, members, counts):
    result = assign(strategy, members, counts, {})
    assert set(result) == set(members)
    assert sorted(p for given in result.values() for p in given) == everything(members, counts)
    assert all(p.topic in members[member] for member, given in result.items() for p in given)


@given(members=members_of_groups, counts=counts_of_topics, gone=st.sets(st.integers(1, 9)),
       more=members_of_groups)
def test_sticky_is_complete_after_any_change(members, counts, gone, more):
    before = assign("sticky", members, counts, {})
    after = {m: topics for m, topics in members.items() if m not in gone} | more
    result = assign("sticky", after, counts, before)
    assert sorted(p for given in result.values() for p in given) == everything(after, counts)


@given(members=members_of_groups, counts=counts_of_topics)
def test_sticky_moves_nothing_when_nothing_has_changed(members, counts):
    before = assign("sticky", members, counts, {})
    assert assign("sticky", members, counts, before) == before


@given(count=st.integers(1, 12), size=st.integers(0, 40))
def test_sticky_shares_evenly_among_equals(count, size):
    shares = assign("sticky", dict.fromkeys(range(count), TOPICS), {"a": size, "b": 3}, {})
    sizes = [len(given) for given in shares.values()]
    assert max(sizes) - min(sizes) <= 1


@given(count=st.integers(1, 12), size=st.integers(0, 64))
def test_who_joins_takes_its_share_and_nothing_else_moves(count, size):
    before = assign("cooperative-sticky", dict.fromkeys(range(count), "a"), {"a": size}, {})
    after = assign("cooperative-sticky", dict.fromkeys(range(count + 1), "a"), {"a": size}, before)
    moved = {p for m in before for p in before[m]} - {p for m in before for p in after[m]}
    assert sorted(moved) == after[count]
    assert len(moved) == size // (count + 1)


@given(count=st.integers(2, 12), size=st.integers(0, 64))
def test_who_leaves_gives_its_share_and_nothing_else_moves(count, size):
    before = assign("cooperative-sticky", dict.fromkeys(range(count), "a"), {"a": size}, {})
    after = assign("cooperative-sticky", dict.fromkeys(range(1, count), "a"), {"a": size}, before)
    assert all(set(before[m]) <= set(after[m]) for m in after)


def test_range_gives_neighbours_of_each_topic():
    result = assign("range", {1: ["a", "b"], 2: ["a", "b"]}, {"a": 3, "b": 3}, {})
    assert result == {1: partitions("a", 0, 1) + partitions("b", 0, 1),
                      2: partitions("a", 2) + partitions("b", 2)}


def test_round_robin_goes_on_with_the_next_topic():
    result = assign("roundrobin", {1: ["a", "b"], 2: ["a", "b"]}, {"a": 3, "b": 3}, {})
    assert result == {1: partitions("a", 0, 2) + partitions("b", 1),
                      2: partitions("a", 1) + partitions("b", 0, 2)}


def test_round_robin_skips_who_does_not_want_the_topic():
    result = assign("roundrobin", {1: ["a"], 2: ["b"], 3: ["a", "b"]}, {"a": 2, "b": 2}, {})
    assert sorted(p for given in result.values() for p in given) == \
        partitions("a", 0, 1) + partitions("b", 0, 1)
    assert all(p.topic == "a" for p in result[1])
    assert all(p.topic == "b" for p in result[2])


@pytest.mark.parametrize("name", ["", "Range", "eager", "round_robin", None, 3])
def test_an_unknown_strategy_is_refused(name):
    with pytest.raises(ConfigurationError, match="cooperative-sticky"):
        check_strategy(name)

"""Partitions: keys land where Kafka's clients put them, records of a list stay in order, and a
policy or a callable that makes no sense is told so before anything is appended."""

import random
import threading
import zlib
from collections import Counter

import aiokafka.partitioner
import kafka.partitioner
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pylog
from pylog import _native
from pylog.partitioner import make_partitioner

# Of Kafka's UtilsTest.java, librdkafka's rdmurmur2.c and kafkajs's murmur2.spec.js.
MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
    b"kafka": 0xd067cf64 - 2**32,
    b"": 275646681,
    b"giberish123456789": 0x8f552b0c - 2**32,
    b"0": 971027396,
    b"1": -1993445489,
    b"128": -326012175,
    b"100:48069": 1009543857,
}
COUNTS = st.integers(1, 100) | st.integers(1, 2**31 - 1)
KEYS = st.none() | st.binary(max_size=80)
POLICIES = ["murmur2", "crc32", "round_robin", lambda key, all_partitions, available: 0]


def java_partition(key, count):
    return (kafka.partitioner.murmur2(key) & 0x7fffffff) % count


class Wrong:
    """A key, a value or a policy that is none."""


def label(value):
    """A test's name, the same in each worker of pytest-xdist."""
    if isinstance(value, type) or callable(value):
        return value.__name__.strip("<>") if hasattr(value, "__name__") else "callable"
    is_plain = isinstance(value, (str, bytes, int, float, list, tuple, type(None)))
    return repr(value) if is_plain and "object" not in repr(value) else type(value).__name__


# ---- hashes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "number"), MURMUR2.items())
def test_murmur2_gives_the_published_numbers(key, number):
    assert _native.murmur2(key) == number


@pytest.mark.parametrize(("key", "partition"), [(b"foobar", 0), (b"abc", 3), (b"kafka", 4)])
def test_key_lands_where_the_java_client_puts_it(key, partition):
    assert make_partitioner("murmur2", 6).partition(key) == partition
    assert _native.partition_of(key, 6) == partition


def test_crc32_gives_the_published_numbers():
    assert _native.crc32(b"123456789") == 0xcbf43926
    assert _native.crc32(b"kafka") == 0x5bbc7517
    assert _native.crc32(b"") == 0
    assert make_partitioner("crc32", 6).partition(b"kafka") == 5


@pytest.mark.parametrize("size", range(65))
def test_key_of_any_size_hashes_as_elsewhere(size, rng):
    for key in (rng.randbytes(size), bytes(size), b"\xff" * size):
        assert _native.murmur2(key) % 2**32 == kafka.partitioner.murmur2(key)
        assert _native.crc32(key) == zlib.crc32(key)


@given(st.binary(max_size=200))
def test_any_key_hashes_as_elsewhere(key):
    assert _native.murmur2(key) % 2**32 == kafka.partitioner.murmur2(key)
    assert _native.crc32(key) == zlib.crc32(key)


@pytest.mark.parametrize("start", range(16))
def test_key_at_any_address_hashes_as_elsewhere(start, rng):
    whole = rng.randbytes(100)

    for end in range(start, 100):
        view = memoryview(bytearray(whole))[start:end]
        assert _native.murmur2(view) % 2**32 == kafka.partitioner.murmur2(whole[start:end])
        assert _native.crc32(view) == zlib.crc32(whole[start:end])


@given(st.binary(max_size=80), COUNTS)
def test_any_key_lands_below_the_count_and_where_java_puts_it(key, count):
    assert _native.partition_of(key, count) == java_partition(key, count)
    expected = zlib.crc32(key) % count if key else -1
    assert _native.partition_of(key, count, "crc32") == expected


@given(st.lists(KEYS, max_size=100), COUNTS, st.sampled_from(["murmur2", "crc32"]))
def test_list_of_keys_lands_as_each_of_them(keys, count, name):
    found = _native.partitions_of(keys, count, name)

    assert found.dtype == numpy.int32
    assert found.tolist() == [_native.partition_of(key, count, name) for key in keys]


def test_records_without_a_key_go_where_the_caller_says():
    keys, empty = [None, b"kafka", b"", None], java_partition(b"", 6)

    assert _native.partitions_of(keys, 6, "murmur2", 2).tolist() == [2, 4, empty, 2]
    assert _native.partitions_of(keys, 6, "crc32", 2).tolist() == [2, 5, 2, 2]
    assert _native.partitions_of(keys, 6).tolist()[0] == -1


@pytest.mark.parametrize("key", [bytearray(b"kafka"), memoryview(b"kafka"),
                                 numpy.frombuffer(b"kafka", numpy.uint8)], ids=type)
def test_key_may_be_anything_bytes_like(key):
    assert _native.partition_of(key, 6) == 4
    assert _native.partitions_of([b"abc", key], 6).tolist() == [3, 4]
    for policy in POLICIES:
        assert make_partitioner(policy, 6).partition(key) in range(6)


@pytest.mark.parametrize("key", ["kafka", 7, 1.5, [1], Wrong(), numpy.array([Wrong()])], ids=type)
def test_key_that_is_no_bytes_is_refused(key):
    hints = "bytes-like|objects"
    for function in (_native.murmur2, _native.crc32):
        with pytest.raises(TypeError, match=hints):
            function(key)
    with pytest.raises(TypeError, match=hints):
        _native.partition_of(key, 3)
    with pytest.raises(TypeError, match=hints):
        _native.partitions_of([b"fine", key], 3)
    for policy in ("murmur2", "crc32", POLICIES[-1]):
        with pytest.raises(TypeError, match=hints):
            make_partitioner(policy, 3).partition(key)
        with pytest.raises(TypeError, match=hints):
            make_partitioner(policy, 3).partitions([b"fine", key], 2)


@pytest.mark.parametrize("function", [_native.murmur2, _native.crc32])
def test_no_key_has_no_hash(function):
    with pytest.raises(TypeError, match="without a key"):
        function(None)


@pytest.mark.parametrize("count", [0, -1, 2**31, 2**70, -2**70])
def test_impossible_count_of_partitions_is_refused(count):
    for call in (lambda: _native.partition_of(b"k", count),
                 lambda: _native.partitions_of([b"k"], count),
                 *[lambda policy=policy: make_partitioner(policy, count) for policy in POLICIES]):
        with pytest.raises(pylog.ConfigurationError, match="from 1 on") as caught:
            call()
        assert (caught.value.option, caught.value.value) == ("count", count)


@pytest.mark.parametrize("count", [None, "3", 1.0, True, b"3"])
def test_count_that_is_no_int_is_refused(count):
    for call in (lambda: _native.partition_of(b"k", count),
                 lambda: _native.partitions_of([b"k"], count),
                 *[lambda policy=policy: make_partitioner(policy, count) for policy in POLICIES]):
        with pytest.raises(TypeError, match="must be an int"):
            call()


@pytest.mark.parametrize("name", ["fnv1a", "", "MURMUR2", None, 1, b"murmur2", []])
def test_unknown_hash_is_refused(name):
    for call in (_native.partition_of, _native.partitions_of):
        with pytest.raises(pylog.ConfigurationError, match="use 'murmur2' or 'crc32'"):
            call(b"k" if call is _native.partition_of else [b"k"], 3, name)


@pytest.mark.parametrize("unkeyed", [-2, 3, 2**40, 2**70])
def test_place_for_unkeyed_records_must_exist(unkeyed):
    with pytest.raises(pylog.ConfigurationError, match="none of the 3 partitions"):
        _native.partitions_of([None], 3, "murmur2", unkeyed)


@pytest.mark.parametrize("keys", [b"abc", "abc", None, 5, Wrong()], ids=type)
def test_what_is_no_list_of_keys_is_refused(keys):
    with pytest.raises(TypeError, match="expected a list with a key each"):
        _native.partitions_of(keys, 3)


# ---- policies --------------------------------------------------------------------------------


def test_default_policy_is_murmur2():
    assert make_partitioner(None, 6).name == "murmur2"


def test_records_without_a_key_stay_until_a_batch_is_full(seed):
    partitioner = make_partitioner("murmur2", 5, random.Random(seed))
    home, other = partitioner.partition(None), java_partition(b"kafka", 5)

    assert {partitioner.partition(None) for _ in range(50)} == {home}
    assert partitioner.partitions(None, 50) == home
    assert partitioner.partitions([None, b"kafka"], 2).tolist() == [home, other]
    partitioner.move_on(home)
    assert partitioner.partition(None) != home


def test_full_batch_of_another_partition_moves_nobody(seed):
    partitioner = make_partitioner("crc32", 5, random.Random(seed))
    home = partitioner.partition(None)

    for other in {0, 1, 2, 3, 4} - {home}:
        partitioner.move_on(other)

    assert partitioner.partition(None) == home


def test_every_partition_gets_its_share_of_batches():
    partitioner, counts = make_partitioner("murmur2", 4, random.Random(1)), Counter()

    for _ in range(4000):
        counts[home := partitioner.partition(None)] += 1
        partitioner.move_on(home)

    assert sorted(counts) == [0, 1, 2, 3]
    assert min(counts.values()) > 800


def test_producers_start_on_different_partitions():
    assert len({make_partitioner("murmur2", 1000).partition(None) for _ in range(20)}) > 10


def test_only_partition_is_stayed_on():
    for policy in POLICIES:
        partitioner = make_partitioner(policy, 1)
        partitioner.move_on(0)
        assert [partitioner.partition(None), partitioner.partition(b"k")] == [0, 0]


def test_round_robin_goes_on_over_single_records_and_lists():
    partitioner = make_partitioner("round_robin", 3, random.Random(0))
    start = partitioner.partition(b"whatever")

    found = [partitioner.partition(None), *partitioner.partitions([b"k"] * 4, 4).tolist(),
             *partitioner.partitions(None, 2).tolist(), partitioner.partition(b"whatever")]

    assert found == [(start + i) % 3 for i in range(1, 9)]


def test_round_robin_of_many_threads_skips_no_turn():
    partitioner, counts = make_partitioner("round_robin", 4), Counter()
    found = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda mine=mine: mine.extend(
        partitioner.partition() for _ in range(500))) for mine in found]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for mine in found:
        counts.update(mine)
    assert counts == {0: 500, 1: 500, 2: 500, 3: 500}


@pytest.mark.parametrize("policy", POLICIES, ids=label)
def test_added_partitions_are_used(policy):
    partitioner = make_partitioner(policy, 1)
    partitioner.resize(6)

    if policy in ("murmur2", "crc32"):
        assert partitioner.partition(b"kafka") == _native.partition_of(b"kafka", 6, policy)
    elif policy == "round_robin":
        assert {partitioner.partition() for _ in range(6)} == set(range(6))
    assert partitioner.count == 6


@pytest.mark.parametrize("policy", POLICIES[:3])
def test_topic_that_was_made_anew_with_fewer_is_kept_to(policy):
    for _ in range(20):
        partitioner = make_partitioner(policy, 9)
        partitioner.resize(2)
        assert partitioner.partition(None) in (0, 1)
        assert max(partitioner.partitions([None, b"a", b"b"], 3)) <= 1


@pytest.mark.parametrize("count", [0, -5, 2**31])
@pytest.mark.parametrize("policy", POLICIES, ids=label)
def test_no_policy_can_be_resized_to_nothing(policy, count):
    partitioner = make_partitioner(policy, 3)

    with pytest.raises(pylog.ConfigurationError):
        partitioner.resize(count)
    assert partitioner.count == 3


def test_callable_is_called_as_kafka_python_does():
    calls = []
    partitioner = make_partitioner(lambda *arguments: calls.append(arguments) or 1, 3)

    assert partitioner.partition(b"k") == 1
    assert partitioner.partition(None) == 1
    assert partitioner.partitions([bytearray(b"a"), None], 2).tolist() == [1, 1]
    assert partitioner.partitions(None, 1).tolist() == [1]
    assert calls == [(key, [0, 1, 2], [0, 1, 2]) for key in (b"k", None, b"a", None, None)]


@given(st.binary(max_size=40), st.integers(1, 50))
def test_partitioner_of_aiokafka_works_as_there(key, count):
    partitioner = make_partitioner(aiokafka.partitioner.DefaultPartitioner(), count)

    assert partitioner.partition(key) == make_partitioner("murmur2", count).partition(key)


def test_callable_may_change_the_lists_that_it_gets():
    partitioner = make_partitioner(lambda key, everyone, available: available.pop(), 2)

    assert [partitioner.partition(b"k") for _ in range(5)] == [1] * 5


def test_callable_may_return_an_int_of_numpy():
    found = make_partitioner(lambda *_: numpy.int64(2), 3).partition(b"k")

    assert (found, type(found)) == (2, int)


async def choose_later(key, all_partitions, available):
    return 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("result", [
    None, -1, 3, 2**70, "0", b"\0", 1.0, True, False, [0], (0,), Wrong(), float("nan"),
    lambda: 0, {0: 0},
], ids=label)
def test_callable_that_returns_no_partition_is_named(result):
    def choose(key, all_partitions, available):
        return result

    partitioner = make_partitioner(choose, 3)
    for call in (lambda: partitioner.partition(b"a" * 1000),
                 lambda: partitioner.partition(None),
                 lambda: partitioner.partitions([b"k"], 1),
                 lambda: partitioner.partitions(None, 1)):
        with pytest.raises(pylog.ConfigurationError, match=r"choose returned .*0 to 2") as caught:
            call()
        assert caught.value.option == "partitioner"
        assert caught.value.value is result
        assert len(str(caught.value)) < 500


@pytest.mark.filterwarnings("error")
def test_callable_that_returns_a_coroutine_is_named():
    partitioner = make_partitioner(lambda *arguments: choose_later(*arguments), 3)

    with pytest.raises(pylog.ConfigurationError, match="coroutine"):
        partitioner.partition(b"k")


def test_error_of_the_callable_comes_out_as_it_is():
    def fail(key, all_partitions, available):
        raise LookupError("no such customer")

    with pytest.raises(LookupError, match="no such customer"):
        make_partitioner(fail, 3).partition(b"k")
    with pytest.raises(TypeError, match="positional"):
        make_partitioner(lambda key: 0, 3).partition(b"k")


@pytest.mark.parametrize(("name", "advice"), [
    ("murmur", "'murmur2'"), ("Murmur2", "'murmur2'"), ("murmur2_random", "'murmur2'"),
    ("sticky", "'murmur2'"), ("default", "'murmur2'"), ("crc", "'crc32'"), ("crc23", "'crc32'"),
    ("consistent_random", "'crc32'"), ("roundrobin", "'round_robin'"),
    ("org.apache.kafka.clients.producer.RoundRobinPartitioner", "'round_robin'"),
    ("random", "callable"), ("fnv1a_random", "callable"), ("", "or a callable"),
    ("zzz", "or a callable"),
])
def test_unknown_name_is_answered_with_a_known_one(name, advice):
    with pytest.raises(pylog.ConfigurationError, match=f"unknown; .*{advice}") as caught:
        make_partitioner(name, 3)
    assert (caught.value.option, caught.value.value) == ("partitioner", name)


@pytest.mark.parametrize("policy", [
    1, 0, b"murmur2", [], ["murmur2"], Wrong(), Wrong, kafka.partitioner.DefaultPartitioner,
    kafka.partitioner.DefaultPartitioner(), choose_later, False,
], ids=label)
def test_what_is_no_policy_is_refused(policy):
    with pytest.raises(TypeError, match="name or a callable"):
        make_partitioner(policy, 3)


@pytest.mark.parametrize("policy", POLICIES, ids=label)
@pytest.mark.parametrize("size", [0, 1, 3])
def test_keys_of_unlike_number_are_refused(policy, size):
    with pytest.raises(pylog.ConfigurationError, match="give one each"):
        make_partitioner(policy, 3).partitions([b"a", b"b"], size)

"""Names, configs and tuples of topics: Kafka's rules, and what each refusal says."""

import math

import pytest

import pylog
from pylog import topic

KAFKAS_CONFIGS = {
    "cleanup.policy": "delete",
    "compression.type": "producer",
    "flush.ms": "9223372036854775807",
    "index.interval.bytes": "4096",
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
    "segment.bytes": "1073741824",
    "segment.ms": "604800000",
}


# ---- names ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", [
    "a", "A9", "0", "-", "_", "...", ".a", "a.", "__consumer_offsets", "a.b-c_d", "x" * 249, "-1",
])
def test_name_that_kafka_allows_is_allowed(name):
    assert topic.check_name(name) == name


@pytest.mark.parametrize(("name", "fault"), [
    ("", "is empty"),
    (".", "is a directory"),
    ("..", "is a directory"),
    ("x" * 250, "has 250 characters; use 249"),
    ("a b", "has ' ' in it"),
    ("a/b", "has '/' in it"),
    ("../a", "has '/' in it"),
    ("a\0", r"has '\\x00' in it"),
    ("a\n", r"has '\\n' in it"),
    ("ä", "has 'ä' in it"),
    ("\u0661", "has '\u0661' in it"),    # a digit, and not one of Kafka's
    ("\ud800", "in it"),
    ("a:b", "has ':' in it"),
    ("a*", r"has '\*' in it"),
    ("x" * 10_000, "10000 characters"),
])
def test_name_that_kafka_refuses_is_refused_with_the_reason(name, fault):
    with pytest.raises(pylog.InvalidTopicError, match=fault) as caught:
        topic.check_name(name)

    assert caught.value.topic == name
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", [None, b"orders", 7, ["orders"]])
def test_name_of_another_type_is_a_type_error(name):
    with pytest.raises(TypeError, match="the name of a topic must be a str"):
        topic.check_name(name)


@pytest.mark.parametrize(("name", "other"), [
    ("a.b", "a_b"), ("a_b", "a.b"), ("a.b_c", "a_b.c"), ("_", "."), ("a..b", "a__b"),
])
def test_names_that_differ_in_dot_and_underscore_alone_collide(name, other):
    with pytest.raises(pylog.InvalidTopicError, match="metrics") as caught:
        topic.check_no_collision(name, ["else", other])

    assert (caught.value.topic, caught.value.collides_with) == (name, other)


def test_other_names_do_not_collide():
    topic.check_no_collision("a.b", [])
    topic.check_no_collision("a.b", ["a.b", "a-b", "ab", "a.b.c", "A_b"])


def test_directory_names_are_kafkas_and_read_back():
    for name in ("orders", "orders-1", "-", "a.b_c", "x" * 249):
        for partition in (0, 7, topic.PARTITIONS_MAX - 1):
            directory = topic.directory_name(name, partition)
            assert topic.partition_of(directory) == (name, partition)
            assert len(directory) <= 255


@pytest.mark.parametrize("name", [
    "", "orders", "orders-", "-1", "orders-01", "orders-x", "orders--", "orders-1 ", "orders-1\n",
    "orders-100000", "a b-1", ".-1", "..-1", "x" * 250 + "-1", "metadata.db", "orders-\u0661",
    "orders-0.0123456789abcdef0123456789abcdef-delete",
])
def test_directory_of_another_name_is_no_partition(name):
    assert topic.partition_of(name) is None


# ---- tuples --------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", [
    "TopicPartition", "OffsetAndMetadata", "OffsetAndTimestamp", "RecordMetadata",
])
def test_fields_are_kafka_pythons(name):
    structs = pytest.importorskip("kafka.structs")
    future = pytest.importorskip("kafka.producer.future")

    theirs = getattr(structs, name, None) or getattr(future, name)

    assert getattr(topic, name)._fields == theirs._fields


def test_tuples_are_compared_and_hashed_by_value():
    positions = {topic.TopicPartition("orders", 1): topic.OffsetAndMetadata(7)}

    assert positions["orders", 1] == (7, "", -1)


# ---- partitions ----------------------------------------------------------------------------------

@pytest.mark.parametrize("count", [0, -1, 100_001, 1 << 80, -(1 << 80)])
def test_impossible_number_of_partitions_is_refused(count):
    with pytest.raises(pylog.InvalidPartitionsError, match="use 1 to 100,000") as caught:
        topic.check_partitions(count, "orders")

    assert (caught.value.topic, caught.value.partitions) == ("orders", count)


@pytest.mark.parametrize("count", [None, True, 1.0, "3", math.nan])
def test_number_of_partitions_that_is_no_int_is_a_type_error(count):
    with pytest.raises(TypeError, match="the number of partitions must be an int"):
        topic.check_partitions(count, "orders")


# ---- configs -------------------------------------------------------------------------------------

def test_names_and_defaults_are_kafkas():
    assert {name: config.default for name, config in topic.TOPIC_CONFIGS.items()} == KAFKAS_CONFIGS
    assert not KAFKAS_CONFIGS.keys() & topic.REFUSED.keys()


def test_defaults_are_valid_and_the_defaults_of_the_log(log_path):
    assert topic.check_configs(KAFKAS_CONFIGS) == KAFKAS_CONFIGS
    assert topic.log_options(KAFKAS_CONFIGS) == {}
    with pylog.Log(log_path) as log:
        options = log.stats()["options"]
    for config in topic.TOPIC_CONFIGS.values():
        if config.option in ("segment_bytes", "max_message_bytes", "index_interval_bytes"):
            assert str(options[config.option]) == config.default


def test_configs_become_options_of_the_log(log_path):
    configs = topic.check_configs({
        "segment.bytes": 65536, "max.message.bytes": "2000", "index.interval.bytes": 0,
        "message.timestamp.type": "LogAppendTime", "compression.type": "lz4", "flush.ms": 10**12,
        "retention.ms": 1, "segment.ms": 1,
    })
    options = topic.log_options(configs)

    assert options == {
        "segment_bytes": 65536, "max_message_bytes": 2000, "index_interval_bytes": 0,
        "timestamp_type": "append", "compression": "lz4", "flush_interval_ms": 86_400_000,
    }
    with pylog.Log(log_path, **options) as log:
        stored = log.stats()["options"]
    assert {name: stored[name] for name in options if name in stored} == {
        name: value for name, value in options.items() if name in stored}


@pytest.mark.parametrize("text", ["uncompressed", "producer"])
def test_compression_that_is_none_is_none(text):
    assert topic.log_options({"compression.type": text}).get("compression") is None


def test_what_is_lost_with_the_store_keeps_all():
    assert topic.configs_of(None) == {"retention.ms": "-1", "retention.bytes": "-1"}


@pytest.mark.parametrize(("name", "value", "text"), [
    ("retention.ms", -1, "-1"),
    ("retention.ms", "0012", "12"),
    ("retention.bytes", (1 << 63) - 1, "9223372036854775807"),
    ("segment.bytes", 4096, "4096"),
    ("message.timestamp.type", "LogAppendTime", "LogAppendTime"),
])
def test_value_is_kept_as_text(name, value, text):
    assert topic.check_configs({name: value}) == {name: text}
    assert topic.config_value({name: text}, name) in (value, int(text) if text[-1].isdigit() else 0)


@pytest.mark.parametrize(("name", "value"), [
    ("retention.ms", -2), ("retention.ms", 1 << 63), ("retention.ms", ""), ("retention.ms", "1d"),
    ("retention.ms", "1.5"), ("retention.ms", " 1"), ("retention.ms", "+1"),
    ("retention.ms", "1_000"), ("retention.ms", "\u0661"), ("retention.ms", "9" * 5000),
    ("retention.bytes", -(1 << 90)), ("segment.bytes", 4095), ("segment.bytes", (1 << 30) + 1),
    ("segment.ms", 0), ("flush.ms", 0), ("max.message.bytes", 127), ("index.interval.bytes", -1),
    ("message.timestamp.type", "create"), ("message.timestamp.type", ""),
    ("compression.type", "rar"), ("compression.type", "none"), ("cleanup.policy", "keep"),
    ("cleanup.policy", ""), ("cleanup.policy", "compact,keep"), ("cleanup.policy", "delete,delete"),
])
def test_impossible_value_is_named_with_what_is_possible(name, value):
    with pytest.raises(pylog.InvalidConfigError, match=f"{name}=.*; use ") as caught:
        topic.check_configs({name: value})

    assert (caught.value.config, caught.value.value) == (name, str(value))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [None, 1.5, True, b"1", [1]])
def test_value_of_another_type_is_a_type_error(value):
    with pytest.raises(TypeError, match=r"retention\.ms"):
        topic.check_configs({"retention.ms": value})


@pytest.mark.parametrize("configs", [[("retention.ms", 1)], "retention.ms=1", 7, {7: 1}, {None: 1}])
def test_configs_that_are_no_dict_of_names_are_a_type_error(configs):
    with pytest.raises(TypeError, match="must be a"):
        topic.check_configs(configs)


@pytest.mark.parametrize("policy", [
    "compact", "compact,delete", "delete,compact", "compact, delete",
])
def test_compaction_is_not_supported_yet(policy):
    with pytest.raises(pylog.NotSupportedError, match="use 'delete'"):
        topic.check_configs({"cleanup.policy": policy})


@pytest.mark.parametrize("codec", ["snappy", "zstd"])
def test_codec_that_cannot_be_written_is_not_supported(codec):
    with pytest.raises(pylog.NotSupportedError, match="use 'lz4'"):
        topic.check_configs({"compression.type": codec})


@pytest.mark.parametrize("name", sorted(topic.REFUSED))
def test_config_without_sense_on_one_machine_is_refused_with_the_reason(name):
    with pytest.raises(pylog.InvalidConfigError, match="leave it out") as caught:
        topic.check_configs({name: "1"})

    assert caught.value.config == name
    assert topic.REFUSED[name] in str(caught.value)


@pytest.mark.parametrize(("name", "advice"), [
    ("retention.mss", "did you mean 'retention.ms'?"),
    ("retention_ms", "did you mean 'retention.ms'?"),
    ("segment.byte", "did you mean 'segment.bytes'?"),
    ("max.message.byte", "did you mean 'max.message.bytes'?"),
    ("xyz", "there are cleanup.policy, "),
    ("", "there are cleanup.policy, "),
])
def test_unknown_config_gets_the_closest_one_there_is(name, advice):
    with pytest.raises(pylog.InvalidConfigError) as caught:
        topic.check_configs({name: 1})

    assert advice in str(caught.value)
    assert caught.value.config == name

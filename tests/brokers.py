"""Reading a broker's topics, for tests."""

from pylog import _native


def records(broker, topic="orders"):
    return list(broker.read(topic))


def values(broker, topic="orders"):
    return [record.value for record in broker.read(topic)]


def codecs(broker, topic, partition=0):
    """The codec of each batch of a partition, as its number."""
    return [_native.decode_batch(batch)["codec"]
            for batch in broker.log(topic, partition).batches(0)]

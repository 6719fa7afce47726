"""What a consumer has asked for: topics by name or pattern, and which partitions that is now."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pylog.broker import Broker
from pylog.errors import ConfigurationError, UnknownTopicOrPartitionError
from pylog.options import names_in
from pylog.topic import TopicPartition, check_name

LISTENED = ("on_partitions_assigned", "on_partitions_revoked", "on_partitions_lost")


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """Topics, named or matched. listener: has on_partitions_revoked, _assigned and _lost, or some.

        >>> SubscriptionState(frozenset({"orders"})).matches("orders")
        True
    """

    names: frozenset[str] = frozenset()
    pattern: re.Pattern[str] | None = None
    listener: Any = None

    def matches(self, topic: str) -> bool:
        """Is the topic one of those?"""
        if self.pattern is not None:
            return self.pattern.match(topic) is not None
        return topic in self.names

    def make_topics(self, broker: Broker) -> None:
        """Those that are named are made, or missed, as the broker has it."""
        for name in self.names:
            broker.topic(name)

    def partitions(self, broker: Broker) -> list[TopicPartition]:
        """Those that there are at the moment, in order. Raises UnknownTopicOrPartitionError where a
        topic that is named has been deleted."""
        entries = broker.topics()
        for name in self.names.difference(entries):
            raise UnknownTopicOrPartitionError(
                f"the topic {name!r} was deleted; subscribe() to others, or to it once it is "
                "there again",
                topic=name)
        return [TopicPartition(name, number) for name, entry in sorted(entries.items())
                if self.matches(name) for number in range(entry.partitions)]

    def tell(self, what: str, partitions: list[TopicPartition]) -> None:
        """Calls the listener's `on_partitions_<what>`, if it has one; "lost" falls back on revoked,
        as in Kafka."""
        call = getattr(self.listener, f"on_partitions_{what}", None)
        if call is None and what == "lost":
            call = getattr(self.listener, "on_partitions_revoked", None)
        if call is not None and partitions:
            call(partitions)


def make_subscription(topics: Iterable[str], pattern: str | re.Pattern[str] | None,
                      listener: Any) -> SubscriptionState:
    """What `subscribe` was given, checked. Raises TypeError, InvalidTopicError, ConfigurationError.

        >>> sorted(make_subscription(["orders", "refunds"], None, None).names)
        ['orders', 'refunds']
    """
    names = frozenset(check_name(name) for name in names_in("topics", topics))
    if listener is not None and not any(
            callable(getattr(listener, name, None)) for name in LISTENED):
        raise TypeError(f"a listener has some of {', '.join(LISTENED)}, and {listener!r} has none")
    if pattern is None:
        return SubscriptionState(names, None, listener)
    if names:
        raise ConfigurationError("pass topics or a pattern, not both: the pattern may name them, "
                                 "as 'orders|refunds'", option="pattern", value=pattern)
    try:
        return SubscriptionState(frozenset(), re.compile(pattern), listener)
    except re.error as error:
        raise ConfigurationError(f"pattern={pattern!r} is no regular expression: {error}",
                                 option="pattern", value=pattern) from None

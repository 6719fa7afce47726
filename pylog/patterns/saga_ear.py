"""Ear: what an orchestrator of sagas sleeps on, and how it hears the answers to its commands."""

import contextlib
import time
from typing import Any, NamedTuple

from pylog import Broker, ClosedError, Consumer, Record, TopicPartition, WakeupError
from pylog.patterns.headers import CE_TYPE
from pylog.patterns.saga_commands import Command
from pylog.patterns.saga_run import SagaRun
from pylog.patterns.saga_steps import Action, Step

LOOK_SECONDS = 1.0    # between looks whether a bus has more partitions


class Attempt(NamedTuple):
    """What an outcome is of. turn: the run's, when it was begun."""

    run: SagaRun
    turn: int
    step: Step
    action: Action


class Expected(NamedTuple):
    """An answer that may come. is_done: it says that the command is done."""

    attempt: Attempt
    command: Command
    is_done: bool


class Ear:
    """What an orchestrator sleeps on: the journal, and the buses that answers come by.

    One consumer reads them all; an answer is found by its type in a dict.
    """

    def __init__(self, broker: Broker, journal: str) -> None:
        self._broker = broker
        self._consumer = Consumer(broker, auto_offset_reset="earliest")
        self._logs: dict[str, list[Any]] = {}
        self._expected: dict[str, dict[bytes, Expected]] = {}
        self._look_at = 0.0
        self.watch(journal)

    def watch(self, topic: str) -> None:
        """Wakes up for what is appended there from now on."""
        if topic not in self._logs:
            self._logs[topic] = []
            self._take_in(topic)

    def _take_in(self, topic: str) -> None:
        """Those of its partitions that it does not know."""
        count, logs = self._broker.topic(topic).partitions, self._logs[topic]
        if len(logs) == count:
            return
        is_new = not logs
        added = [TopicPartition(topic, number) for number in range(len(logs), count)]
        logs += [self._broker.log(*one) for one in added]
        self._consumer.assign([*self._consumer.assignment(), *added])
        for one in added:    # what is added while it listens is read from its beginning
            self._consumer.seek(one, logs[one.partition].readable_offset if is_new else 0)

    def ends(self, topic: str) -> list[int]:
        """Where the partitions of a bus end."""
        return [log.readable_offset for log in self._logs[topic]]

    def expect(self, command: Command, attempt: Attempt) -> None:
        """The answers to a command."""
        expected = self._expected.setdefault(command.bus.name, {})
        for kind, is_done in command.answers(attempt.run.id).items():
            expected[kind] = Expected(attempt, command, is_done)

    def go_back(self, topic: str, ends: list[int]) -> None:
        """Hears again what is behind these offsets: an answer may have come when nobody listened,
        as its saga was another's, or between two attempts."""
        for number in range(len(self._logs[topic])):
            place, offset = TopicPartition(topic, number), 0
            if number < len(ends):    # or it was added since
                offset = ends[number]
            if self._consumer.position(place) > offset:
                self._consumer.seek(place, offset)

    def has_heard(self, topic: str, ends: list[int]) -> bool:
        """Whether it has come to these offsets."""
        return all(self._consumer.position(TopicPartition(topic, number)) >= end
                   for number, end in enumerate(ends))

    def forget(self, command: Command, attempt: Attempt) -> None:
        """Nobody waits for its answers."""
        for kind in command.answers(attempt.run.id):
            self._expected[command.bus.name].pop(kind, None)

    def hear(self, timeout: float) -> list[tuple[Expected, Record]]:
        """Waits until there is something new; returns the answers among it."""
        if (now := time.monotonic()) >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            for topic in self._logs:
                self._take_in(topic)
        try:
            found = self._consumer.poll(1000 * timeout)
        except WakeupError:
            return []
        answers = []
        for partition, records in found.items():
            expected = self._expected.get(partition.topic)
            if expected:
                answers += [(expected[kind], record) for record in records
                            if (kind := record.header(CE_TYPE)) in expected]
        return answers

    def wake(self) -> None:
        """Ends a wait, from any thread."""
        with contextlib.suppress(ClosedError):
            self._consumer.wakeup()

    def close(self) -> None:
        self._consumer.close()

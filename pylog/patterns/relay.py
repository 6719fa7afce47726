"""Relay: makes records of an outbox's rows, each once.

Records are appended, then their rows deleted, and a kill may come in between. So with the deletion,
in one transaction, goes where each partition ended at that time, its *place*: all that was sent of
rows that are still there lies behind it. Who takes over reads each partition from its place to its
end, and knows of every row in the table whether it was sent. Rows may thus be committed in any
order, and numbers may be missing, which is why the highest number that was sent would not do.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from pylog import (
    Broker,
    IllegalStateError,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    TopicError,
)
from pylog.patterns.dbapi import execute, in_style_of, lacks_table
from pylog.patterns.headers import OUTBOX_ID, text_of, to_key
from pylog.patterns.standby import Standby

BATCH = 500    # rows a transaction
# What no further attempt can mend; anything else is tried again until it goes well.
HOPELESS = (TopicError, MessageSizeTooLargeError, InvalidTimestampError, TypeError, ValueError,
            AttributeError)    # an id that is no text, in a row of plain SQL


class Relay(Standby):
    """What `Outbox.relay` returns. See Standby for `start`, `stop`, `error`.

    While the database or the broker fails nothing is lost: it is tried again. A row that can never
    be sent (a name that no topic can have, a record that is too large, text that is no UTF-8) is
    parked, see `Outbox.parked`, and those behind it go on.
    """

    def __init__(self, broker: Broker, name: str, connect: Callable[[], Any], table: str,
                 poll: float) -> None:
        super().__init__(broker, name)
        self._connect = connect
        self._table = table
        self._poll = poll

    def run_once(self, timeout: float | None = None) -> int:
        """Sends what is committed now; returns how many rows that were. Waits while another relay
        is at it; raises PylogTimeoutError after `timeout` seconds, and what fails."""
        with self._broker.claim(self.name, timeout), self._passage() as passage:
            total = 0
            while count := passage.send():
                total += count
            return total

    def _work(self) -> None:
        with self._passage() as passage:
            while not self._is_stopping:
                count = passage.send()
                self.error = None
                if not count:
                    self._wait(self._poll)

    def _passage(self) -> "closing[_Passage]":
        return closing(_Passage(self._broker, self._connect(), self._table))


class _Passage:
    """The rows' way into the log, of one who has the claim."""

    def __init__(self, broker: Broker, connection: Any, table: str) -> None:
        self._table = table
        self._broker = broker
        self._connection = connection
        try:
            with with_tables(table):
                found = self._execute(
                    f"SELECT topic, topic_id, offsets FROM {table}_places").fetchall()
            # topic: its id, and an offset by partition
            self._places: dict[str, tuple[str, list[int]]] = {
                topic: (topic_id, json.loads(offsets)) for topic, topic_id, offsets in found}
            self._sent = self._in_doubt()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> Any:
        return execute(self._connection, statement, values)

    def _in_doubt(self) -> set[str]:
        """The ids of all rows that were sent since the places were noted."""
        found: set[str] = set()
        topics = self._broker.topics()
        for topic, (topic_id, offsets) in self._places.items():
            if topic not in topics:
                continue
            is_the_same = str(topics[topic].topic_id) == topic_id
            for partition in range(topics[topic].partitions):
                log = self._broker.log(topic, partition)
                place = offsets[partition] if is_the_same and partition < len(offsets) else 0
                here = {text_of(row_id) for record in log.read(max(place, log.start_offset))
                        if (row_id := record.header(OUTBOX_ID)) is not None}
                if here:    # whoever sent them may have been killed before they were on disk
                    log.flush()
                found |= here
        return found

    # ---- a batch

    def send(self) -> int:
        """The next rows; returns how many there were, 0 for none."""
        rows = self._execute(
            f"SELECT number, id, topic, key, value, headers FROM {self._table} "
            f"WHERE error IS NULL ORDER BY number LIMIT {BATCH}").fetchall()
        self._connection.commit()    # elsewhere a look is a transaction, too
        if not rows:
            self._sent.clear()       # what was in doubt has been settled
            return 0
        new = {topic for _, _, topic, *_ in rows} - self._places.keys()
        if self._note(new):
            self._connection.commit()
        done, refused, touched = [], [], set()
        for number, row_id, topic, key, value, headers in rows:
            try:
                if row_id not in self._sent:
                    touched.add(self._append(row_id, topic, key, value, headers))
                done.append((number, row_id))
            except HOPELESS as error:
                refused.append((f"{type(error).__name__}: {error}", number))
        for place in touched:
            self._broker.log(*place).flush()
        # By both: a row that was withdrawn meanwhile may have left its number to another.
        self._execute_many(f"DELETE FROM {self._table} WHERE number = ? AND id = ?", done)
        self._execute_many(f"UPDATE {self._table} SET error = ? WHERE number = ?", refused)
        self._note(self._places.keys())
        self._connection.commit()
        return len(rows)

    def _append(self, row_id: str, topic: str, key: Any, value: Any, headers: str,
                ) -> tuple[str, int]:
        """Where it went."""
        try:
            found = [(name, None if one is None else one.encode("latin-1"))
                     for name, one in json.loads(headers)]
        except (TypeError, ValueError, AttributeError) as error:    # a row of plain SQL
            raise ValueError("headers must be JSON, [[name, text in latin-1 or null], ...], not "
                             f"{headers!r:.60}") from error
        try:
            found.append((OUTBOX_ID, row_id.encode()))
            done = self._broker.append(topic, to_key(value), to_key(key), found)
        except UnicodeEncodeError as error:
            raise ValueError(f"text must be UTF-8, not {error.object!r:.60}") from error
        return topic, done.partition

    def _note(self, names: Iterable[str]) -> bool:
        """Writes down where the partitions of these topics end now, if that is news."""
        news = {}
        for name in names:
            try:
                entry = self._broker.topic(name)
            except (TopicError, TypeError):    # its rows will be refused
                continue
            ends = [self._broker.log(name, number).end_offset for number in range(entry.partitions)]
            place = str(entry.topic_id), ends
            if self._places.get(name) != place:
                news[name] = place
        self._execute_many(f"DELETE FROM {self._table}_places WHERE topic = ?",
                           [(name,) for name in news])
        self._execute_many(
            f"INSERT INTO {self._table}_places (topic, topic_id, offsets) VALUES (?, ?, ?)",
            [(name, topic_id, json.dumps(ends)) for name, (topic_id, ends) in news.items()])
        self._places.update(news)
        return bool(news)

    def _execute_many(self, statement: str, values: list[tuple[Any, ...]]) -> None:
        if values:
            self._connection.cursor().executemany(in_style_of(self._connection, statement), values)


@contextmanager
def with_tables(table: str) -> Iterator[None]:
    """Says what to do where the tables are not there. Raises IllegalStateError."""
    try:
        yield
    except Exception as error:
        if not lacks_table(error):
            raise
        raise IllegalStateError(
            f"the database has no outbox {table!r} ({str(error).splitlines()[0]}): call "
            "outbox.create_table(connection) once, or make its tables by a migration") from error

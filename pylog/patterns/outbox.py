"""Outbox: what a program has to say, written in the transaction that it is about, and sent once.

A program that changes its database and then publishes may be killed in between; the other way round
it publishes what was never committed. So it adds a row to a table, in its own transaction, and a
*relay* (relay.py) makes records of the rows that were committed. (The pattern is Chris Richardson's
"transactional outbox"; Debezium and NServiceBus have it.)
"""

import hashlib
import json
import os
import re
import sqlite3
import uuid
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pylog import Broker, ConfigurationError, IllegalStateError, NotSupportedError
from pylog.patterns.dbapi import Database, connector, execute
from pylog.patterns.events import CONTENT_TYPES, attributes
from pylog.patterns.headers import OUTBOX_ID, as_headers, to_key
from pylog.patterns.relay import Relay, with_tables
from pylog.patterns.retry import check_seconds
from pylog.patterns.values import codec_of

POLL_MIN = 0.001
TABLES = """
CREATE TABLE IF NOT EXISTS {table} (
    number INTEGER PRIMARY KEY,                              -- the order
    id TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),   -- the header outbox_id
    topic TEXT NOT NULL,
    key BLOB,
    value BLOB,
    headers TEXT NOT NULL DEFAULT '[]',                      -- JSON: [[name, in latin-1], ...]
    made TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,            -- in UTC
    error TEXT                                               -- why it is parked
);
CREATE TABLE IF NOT EXISTS {table}_places (
    topic TEXT PRIMARY KEY,
    topic_id TEXT NOT NULL,
    offsets TEXT NOT NULL    -- JSON, by partition: nothing before them is in doubt
);
"""


class Parked(NamedTuple):
    """A row that could not be sent, and waits for `retry`. error: why."""

    id: str
    topic: str
    error: str


class Outbox:
    """Rows of a table that become records, each once, if their transaction is committed.

    database: the path of an SQLite database, or a function that returns a new DB-API connection
    (PEP 249), which the relay calls. table: its name; `create_table` makes it, and with it
    `<table>_places`, where the relay keeps how far it is. value: what values are, as everywhere.
    name: of the relay's claim, unlike any other outbox's of the broker; made of the table and the
    path by default, so a function needs it where there are two. Rows may be inserted in plain SQL,
    too, as by a trigger: topic, key, value.

        >>> import sqlite3
        >>> outbox = Outbox("app.db")
        >>> db = sqlite3.connect("app.db")
        >>> outbox.create_table(db)
        >>> with db:                                    # the user's own transaction
        ...     _ = db.execute("CREATE TABLE orders (id)")
        ...     _ = db.execute("INSERT INTO orders VALUES (17)")
        ...     _ = outbox.add(db, "orders", {"id": 17}, key="alice")
        >>> with Broker("data") as broker:
        ...     outbox.relay(broker).run_once()
        ...     [(record.key, record.value) for record in broker.read("orders")]
        1
        [(b'alice', b'{"id":17}')]

    **Guarantee**: a row that is committed is one record, exactly once, whoever is killed when; one
    that is rolled back is none. Rows of a key are in the order of their numbers. The record is on
    disk before its row is deleted, so that a power cut takes neither. It bears the row's id in the
    header `outbox_id`. Cost: the row's insert; a relay sends 50,000 rows a second.
    """

    def __init__(self, database: Database, table: str = "outbox", *, value: Any = "json",
                 name: str | None = None) -> None:
        self._connect = connector(database)
        if not isinstance(table, str):
            raise TypeError(f"table must be a str, not {type(table).__name__}")
        if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", table, re.ASCII):
            raise ConfigurationError(f"a table cannot be called {table!r} here: use letters, "
                                     "digits and '_'", option="table", value=table)
        self.table = table
        self.name = _name_of(database, table) if name is None else name
        self._codec = codec_of(value)
        self._content_type = CONTENT_TYPES.get(value) if isinstance(value, str) else None

    def connect(self) -> Any:
        """A new connection to the database."""
        connection = self._connect()
        if isinstance(connection, sqlite3.Connection):    # which keeps text that is no UTF-8
            connection.text_factory = _text_of
        return connection

    # ---- the table

    def create_table(self, connection: Any) -> None:
        """Makes the two tables of an SQLite database if they are not there. Of others they are your
        migrations': `outbox.TABLES` says which columns; `number` must grow by itself. Raises
        NotSupportedError."""
        if not isinstance(connection, sqlite3.Connection):
            raise NotSupportedError(
                f"pylog makes tables in SQLite alone, not by a {type(connection).__name__}: make "
                "them by a migration; pylog.patterns.outbox.TABLES has the columns")
        for statement in TABLES.format(table=self.table).split(";"):    # executescript commits
            connection.execute(statement)

    # ---- rows

    def add(self, connection: Any, topic: str, value: Any, key: Any = None,
            headers: Any = None) -> str:
        """Adds a row by a connection that is in a transaction; returns the row's id.

        It is never committed here. key: bytes or str. headers: a dict or pairs. Raises
        SerializationError, TypeError; IllegalStateError by an SQLite connection that would commit
        the row alone, at once.
        """
        return self._insert(connection, uuid.uuid4().hex, topic, value, key, as_headers(headers))

    def emit(self, connection: Any, bus: str, kind: str, data: Any = None, *, key: Any = None,
             subject: str | None = None, source: str | None = None, headers: Any = None) -> str:
        """Adds a row that becomes an event of a bus, named `bus`, with the row's id as its own."""
        row_id = uuid.uuid4().hex
        found = attributes(kind, bus if source is None else source, row_id, None, subject,
                           self._content_type, headers)
        return self._insert(connection, row_id, bus, data, key, found)

    def _insert(self, connection: Any, row_id: str, topic: str, value: Any, key: Any,
                headers: list[tuple[str, bytes | None]]) -> str:
        if not isinstance(topic, str):
            raise TypeError(f"topic must be a str, not {type(topic).__name__}")
        if not isinstance(key, str | bytes | bytearray | memoryview | None):
            raise TypeError(f"key must be bytes, str or None, not {type(key).__name__}")
        if any(name == OUTBOX_ID for name, _ in headers):
            raise ConfigurationError(f"the header {OUTBOX_ID!r} is the relay's, which knows by it "
                                     "what was sent: use another name", option="headers",
                                     value=OUTBOX_ID)
        _check_transaction(connection)
        serialize = self._codec.serialize
        data = value if serialize is None else serialize(topic, None, value)
        text = json.dumps([(name, None if one is None else one.decode("latin-1"))
                           for name, one in (*headers, *self._codec.headers)])
        execute(connection, f"INSERT INTO {self.table} (id, topic, key, value, headers) "
                "VALUES (?, ?, ?, ?, ?)", (row_id, topic, to_key(key), data, text))
        return row_id

    def pending(self) -> int:
        """How many rows wait to be sent, parked ones not among them."""
        return int(self._ask("SELECT COUNT(*) FROM {table} WHERE error IS NULL")[0][0])

    def oldest(self) -> datetime | None:
        """When the first of the rows that wait was added; None: none waits."""
        [(made,)] = self._ask("SELECT MIN(made) FROM {table} WHERE error IS NULL")
        if isinstance(made, str):    # SQLite has no type for it
            made = datetime.fromisoformat(made)
        if not isinstance(made, datetime):
            return None
        return made if made.tzinfo else made.replace(tzinfo=UTC)

    def parked(self) -> list[Parked]:
        """The rows that cannot be sent: a topic that cannot be, a record that is too large, text
        that is no UTF-8."""
        return [Parked(*map(_shown, row)) for row in self._ask(
            "SELECT id, topic, error FROM {table} WHERE error IS NOT NULL ORDER BY number")]

    def retry(self, row_id: str | None = None) -> int:
        """Has a parked row sent again, or all of them; returns how many. Rows of the same key that
        came later may have been sent before it."""
        with closing(self.connect()) as connection, with_tables(self.table):
            cursor = execute(connection, f"UPDATE {self.table} SET error = NULL WHERE error IS NOT "
                             "NULL" + ("" if row_id is None else " AND id = ?"),
                             () if row_id is None else (row_id,))
            connection.commit()
            return int(cursor.rowcount)

    def _ask(self, question: str) -> list[Any]:
        with closing(self.connect()) as connection, with_tables(self.table):
            return list(execute(connection, question.format(table=self.table)).fetchall())

    # ---- sending

    def relay(self, broker: Broker, poll: float = 0.05) -> Relay:
        """Makes records of the rows: `with outbox.relay(broker):`, or `run_once()`.

        Of any number of relays, in any processes, one works, and another takes over at once when it
        dies. poll: seconds between two looks at an idle table, for a database rings no bell to
        other processes; a look costs 10 us in SQLite. `relay.wake()` has it look now.
        """
        if not isinstance(broker, Broker):
            raise TypeError(f"broker must be a Broker, not {type(broker).__name__}")
        check_seconds("poll", poll, POLL_MIN)
        return Relay(broker, self.name, self.connect, self.table, poll)

    def __repr__(self) -> str:
        return f"<Outbox {self.table!r}>"


def _check_transaction(connection: Any) -> None:
    """A row that is committed by itself says what may never have happened."""
    if isinstance(connection, sqlite3.Connection) and not connection.in_transaction and (
            connection.isolation_level is None or getattr(connection, "autocommit", False) is True):
        raise IllegalStateError("the connection commits each statement by itself, and is in no "
                                "transaction: execute BEGIN first, so that the row is part of it")


def _text_of(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _shown(column: object) -> str:
    """Text that can be printed, whatever plain SQL put there."""
    return str(column).encode(errors="backslashreplace").decode()


def _name_of(database: Database, table: str) -> str:
    if callable(database):
        return f"outbox:{table}"
    return f"outbox:{table}:{hashlib.sha256(os.path.realpath(database).encode()).hexdigest()[:16]}"

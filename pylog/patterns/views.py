"""View: the tables that a projection fills, and how far it has come.

How far is a row a partition of the same database, in the table `pylog_projections`, and is changed
in the transaction of the rows that it is about. So after any kill the two agree, which no offset
that is kept elsewhere could promise.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

from pylog import ConfigurationError
from pylog.patterns.dbapi import execute, in_style_of
from pylog.patterns.view_file import ViewFile

PLACES = """
CREATE TABLE IF NOT EXISTS pylog_projections (
    name VARCHAR(255) NOT NULL,
    part INTEGER NOT NULL,            -- the partition
    topic_id VARCHAR(36) NOT NULL,
    next_offset BIGINT NOT NULL,      -- all before it is in the view
    PRIMARY KEY (name, part)
);
"""


class Place(NamedTuple):
    """How far a partition of a topic is in a view."""

    topic_id: str
    next_offset: int


class View:
    """A connection to the view, for one thread; it makes what is not there.

    identity: of its file. schema: the statements that make the user's tables. reset: what empties
    them, as `Projection.reset` has it; None: tables of an SQLite schema are dropped.
    """

    def __init__(self, file: ViewFile, schema: str,
                 reset: Callable[[Any], object] | None) -> None:
        self.identity = file.identity    # before it is opened: one that comes then is another
        self._connection = file.connect()
        self._schema = schema
        self._reset = reset
        self._is_sqlite = isinstance(self._connection, sqlite3.Connection)
        if self._is_sqlite:
            self._connection.isolation_level = None    # it begins no transaction by itself
        self._depth = 0    # of transactions
        try:
            if not self._is_sqlite and getattr(self._connection, "autocommit", False) is True:
                raise ConfigurationError(
                    "the view's connection commits each statement by itself, and rows would be "
                    "without their place: open it with autocommit off", option="view", value=None)
            with self.transaction():
                self._create(PLACES)
                self._create(schema)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """What is not committed is undone."""
        self._connection.close()

    # ---- transactions

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Yields the connection; all that is done by it counts, or nothing. One within another is a
        part of that, which may be undone alone."""
        is_part = self._depth > 0
        if is_part:
            execute(self._connection, "SAVEPOINT pylog")
        elif self._is_sqlite and not self._connection.in_transaction:
            # At once: a reader that became a writer late might find that another was faster.
            self._connection.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield self._connection
            self._end("RELEASE SAVEPOINT pylog" if is_part else "COMMIT")
        except BaseException:
            if not self.is_broken:
                self._end("ROLLBACK TO SAVEPOINT pylog" if is_part else "ROLLBACK")
            raise
        finally:
            self._depth -= 1

    def _end(self, statement: str) -> None:
        if self._is_sqlite or "SAVEPOINT" in statement:
            execute(self._connection, statement)
        elif statement == "COMMIT":
            self._connection.commit()
        else:
            self._connection.rollback()

    @property
    def is_broken(self) -> bool:
        """Whether somebody has ended the transaction from within, as far as that can be seen."""
        return self._is_sqlite and not self._connection.in_transaction

    # ---- places

    def places(self, name: str) -> dict[int, Place]:
        """How far the projection is, by partition. In a transaction nobody else moves it until that
        is over."""
        execute(self._connection, "UPDATE pylog_projections SET next_offset = next_offset "
                "WHERE name = ?", (name,))    # a lock, where a database has no BEGIN IMMEDIATE
        rows = execute(self._connection, "SELECT part, topic_id, next_offset FROM "
                       "pylog_projections WHERE name = ?", (name,)).fetchall()
        return {part: Place(topic_id, next_offset) for part, topic_id, next_offset in rows}

    def move(self, name: str, places: dict[int, Place]) -> None:
        """Says how far it is, for these partitions."""
        self._execute_many("DELETE FROM pylog_projections WHERE name = ? AND part = ?",
                           [(name, part) for part in places])
        self._execute_many(
            "INSERT INTO pylog_projections (name, part, topic_id, next_offset) "
            "VALUES (?, ?, ?, ?)", [(name, part, *place) for part, place in places.items()])

    def _execute_many(self, statement: str, values: list[tuple[Any, ...]]) -> None:
        self._connection.cursor().executemany(in_style_of(self._connection, statement), values)

    # ---- tables

    def empty(self, name: str) -> None:
        """Tables as they were before the first record, and no place. Raises ConfigurationError."""
        if self._reset is not None:
            self._reset(self._connection)
        elif self._is_sqlite and self._schema:
            for kind, table in _made_by(self._schema):
                self._connection.execute(f'DROP {kind} IF EXISTS "{table}"')
            self._create(self._schema)
        else:
            raise ConfigurationError(
                f"nobody has said how the tables of the projection {name!r} are emptied: give it "
                "the schema of an SQLite view, or a function under @projection.reset",
                option="schema", value=None)
        execute(self._connection, "DELETE FROM pylog_projections WHERE name = ?", (name,))

    def _create(self, schema: str) -> None:
        for statement in statements(schema):
            execute(self._connection, statement)


def statements(script: str) -> list[str]:
    """The statements of a script, whatever semicolons are in texts, comments and triggers.

        >>> statements("CREATE TABLE a (b DEFAULT ';'); CREATE INDEX c ON a (b)")
        ["CREATE TABLE a (b DEFAULT ';');", ' CREATE INDEX c ON a (b);']
    """
    found, begun = [], ""
    for piece in script.split(";"):
        begun += piece + ";"
        if sqlite3.complete_statement(begun):
            found.append(begun)
            begun = ""
    return [one for one in (*found, begun) if one.strip("; \t\r\n")]


def _made_by(schema: str) -> list[tuple[str, str]]:
    """Kind and name of the tables and views that an SQLite schema makes, those first that others
    are made of."""
    with closing(sqlite3.connect(":memory:")) as scratch:
        for statement in statements(schema):
            scratch.execute(statement)
        return scratch.execute("SELECT type, name FROM sqlite_master WHERE type IN ('table', "
                               "'view') AND name NOT LIKE 'sqlite!_%' ESCAPE '!'").fetchall()

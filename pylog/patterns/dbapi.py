"""What patterns need of a database that is the user's: connections of any DB-API module (PEP 249).

A database is the path of an SQLite file, or a function that returns a new connection.
"""

import os
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

from pylog import ConfigurationError

BUSY_SECONDS = 30.0    # that SQLite waits for the transaction of another
MARKS = {"qmark": "?", "format": "%s", "pyformat": "%s", "numeric": ":{}"}
# What says how the database fares, and nothing of a statement: SQLite's codes, and the classes of
# SQLSTATE for a lost connection, a deadlock, no room, an operator, its own I/O, a lock.
PASSING_CODES = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM,
                 sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR,
                 sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL}
PASSING_STATES = ("08", "40", "53", "57", "58", "55P03")

Database = str | os.PathLike[str] | Callable[[], Any]


def connector(database: Database) -> Callable[[], Any]:
    """A function that returns a connection to it. Raises ConfigurationError, TypeError.

        >>> connector(":memory:")().execute("SELECT 17").fetchone()
        (17,)
    """
    if callable(database):
        return _checked(database)
    if isinstance(database, str | os.PathLike):
        if not os.fspath(database):
            raise ConfigurationError("the path of the database is empty, and SQLite would have one "
                                     "that ends with its connection: name a file",
                                     option="database", value=database)
        return lambda: sqlite3.connect(database, timeout=BUSY_SECONDS)
    raise TypeError("database must be the path of an SQLite database or a function that returns a "
                    f"connection, not {type(database).__name__}")


def _checked(connect: Callable[[], Any]) -> Callable[[], Any]:
    """It, and it says so where what it returns is no connection."""
    def connection() -> Any:
        found = connect()
        if not hasattr(found, "cursor"):
            raise TypeError("the function of the database must return a DB-API connection, not "
                            f"{type(found).__name__}")
        return found

    return connection


def execute(connection: Any, statement: str, values: tuple[Any, ...] = ()) -> Any:
    """The cursor of a statement whose parameters are `?`, by whatever DB-API module."""
    styled = in_style_of(connection, statement)
    cursor = connection.cursor()
    cursor.execute(styled, values)
    return cursor


def is_passing(error: BaseException) -> bool:
    """Whether the database is to blame, so that another attempt may go well.

        >>> is_passing(sqlite3.OperationalError("no such table"))
        False
    """
    code = getattr(error, "sqlite_errorcode", None)
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return (isinstance(code, int) and code & 0xFF in PASSING_CODES) or \
        (isinstance(state, str) and state.startswith(PASSING_STATES))


def lacks_table(error: BaseException) -> bool:
    """Whether a statement failed as a table is not there: in SQLite, or by an SQLSTATE."""
    return str(error).startswith("no such table") or \
        "42P01" in (getattr(error, "sqlstate", None), getattr(error, "pgcode", None))


def in_style_of(connection: Any, statement: str) -> str:
    """The statement with the parameters as the connection's module has them (PEP 249)."""
    style = _paramstyle(connection)
    if style == "qmark":
        return statement
    parts = statement.split("?")
    marks = [MARKS[style].format(number) for number in range(1, len(parts))]
    return "".join(part + mark for part, mark in zip(parts, [*marks, ""], strict=True))


def _paramstyle(connection: Any) -> str:
    for one in type(connection).__mro__:
        module = sys.modules.get(one.__module__.partition(".")[0])
        if (style := getattr(module, "paramstyle", None)) in MARKS:
            return str(style)
    raise ConfigurationError(
        f"{type(connection).__name__} is no connection of a DB-API module with a paramstyle of "
        f"{', '.join(MARKS)}; pass the driver's own (of SQLAlchemy: connection.connection."
        "driver_connection)", option="connection", value=type(connection).__name__)

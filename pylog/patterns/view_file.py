"""Where a view lies: how it is opened, and whether it is still the same.

The file of an SQLite view may be deleted, or another put in its place, while it is open; then rows
go where nobody finds them. So a file is known by its inode, which stays its own while it is open.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pylog import ConfigurationError
from pylog.patterns.dbapi import Database, connector


class ViewFile:
    """The path of an SQLite database, or a function that returns a connection: of what that opens
    nothing is known, and it is said to be always the same. Raises ConfigurationError, TypeError.
    """

    def __init__(self, database: Database) -> None:
        self._connect: Callable[[], Any] = connector(database)    # raises for what is no path
        self._path = None if callable(database) else os.fspath(database)
        if self._path == ":memory:":
            raise ConfigurationError("nobody could read a view in :memory:, which belongs to one "
                                     "connection; name a file", option="view", value=database)

    def connect(self) -> Any:
        """A file is in WAL mode, so that others read it while it is written."""
        connection = self._connect()
        if self._path is not None:
            connection.execute("PRAGMA journal_mode = WAL")
            # A power cut may take the last transactions, places and all: they are done again.
            connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    @property
    def identity(self) -> str | None:
        """Which file it is; None: there is none, or an empty one, as who only looks leaves it."""
        if self._path is None:
            return ""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return str(found.st_ino) if found.st_size else None

    def make(self) -> None:
        """An empty one, where there is none. What is left beside one that was deleted alone would
        be taken for the new one's."""
        for name in (f"{self._path}-wal", f"{self._path}-shm"):
            Path(name).unlink(missing_ok=True)
        self.connect().close()

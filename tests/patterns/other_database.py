"""A DB-API module that is not sqlite3: parameters are %s, and only cursors execute."""

import sqlite3

paramstyle = "format"


def connect(path, autocommit=False):
    return Connection(path, autocommit)


class Connection:
    def __init__(self, path, autocommit):
        self.autocommit = autocommit
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        self.commit = lambda: self._end("COMMIT")
        self.rollback = lambda: self._end("ROLLBACK")
        self.close = self._connection.close

    def _end(self, word):
        if self._connection.in_transaction:
            self._connection.execute(word)

    def cursor(self):
        return Cursor(self._connection)


class Cursor:
    def __init__(self, connection):
        self._connection = connection
        self._cursor = connection.cursor()
        self.fetchall = self._cursor.fetchall

    def execute(self, statement, values=()):
        if not self._connection.in_transaction:    # each statement begins one
            self._connection.execute("BEGIN")
        self._cursor.execute(statement.replace("%s", "?"), values)

    def executemany(self, statement, rows):
        for row in rows:
            self.execute(statement, row)

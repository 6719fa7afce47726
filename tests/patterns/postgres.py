"""A PostgreSQL server for tests: one that is given, or one that is begun for as long as they take.

PYLOG_TEST_POSTGRES=conninfo names one, a superuser of it, and a database that may be written to.
Otherwise the binaries of an installed one are looked for, in the PATH and where Debian has them.
"""

import contextlib
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from waiting import until

GIVEN = "PYLOG_TEST_POSTGRES"


@contextlib.contextmanager
def running():
    """Yields its conninfo; skips where there is no server, or no driver."""
    psycopg = pytest.importorskip("psycopg", reason="no psycopg: pip install 'psycopg[binary]'")
    if given := os.environ.get(GIVEN):
        yield given
        return
    binaries = folder_of_binaries()
    user = None
    if os.geteuid() == 0:    # whom the server refuses to serve
        try:
            user = pwd.getpwnam("postgres").pw_name
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    folder = Path(tempfile.mkdtemp(prefix="pylog-pg"))    # its socket needs a short path
    if user:
        shutil.chown(folder, user)
    log = (folder / "log").open("wb")
    options = {"user": user, "stdout": log, "stderr": log, "cwd": folder}
    try:
        subprocess.run([binaries / "initdb", "-D", folder / "data", "-A", "trust", "-U", "tester",
                        "--no-sync"], check=True, **options)
        server = subprocess.Popen([binaries / "postgres", "-D", folder / "data", "-k", folder,
                                   "-c", "listen_addresses=", "-c", "fsync=off"], **options)
        try:
            conninfo = f"host={folder} user=tester dbname=postgres"
            until(lambda: is_up(psycopg, conninfo))
            yield conninfo
        finally:
            server.send_signal(signal.SIGINT)    # fast: connections are cut
            server.wait()
    finally:
        log.close()
        shutil.rmtree(folder)


def folder_of_binaries():
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent    # a link, it may be, and the others are not beside it
    if not (places := sorted(glob.glob("/usr/lib/postgresql/*/bin"))):
        pytest.skip(f"no PostgreSQL: install its server, or name one in {GIVEN}")
    return Path(places[-1])


def is_up(psycopg, conninfo):
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(conninfo):
        return True
    return False

"""One flush is for all who wait for one, whatever process and thread they are."""

import os
import subprocess
import sys

import pytest
from drivers import built

import pylog

APPENDING = """
import sys
import threading
import pylog

def append():
    with pylog.Log(sys.argv[1]) as log:
        for _ in range(20):
            assert log.append(b"value") < log.durable_offset

print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=append) for _ in range(3)]
for one in threads:
    one.start()
for one in threads:
    one.join()
"""


@pytest.mark.slow
def test_group_commit_shares_one_flush(log_path):
    slow = {**os.environ, "SLOW_SYNC_MS": "5",    # some disks take no time, and nobody waits
            "LD_PRELOAD": str(built("build/slow_sync.so") / "slow_sync.so")}
    with pylog.Log(log_path, durability="fsync") as log:
        command = [sys.executable, "-c", APPENDING, log_path]
        writers = [subprocess.Popen(command, env=slow, text=True, stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE) for _ in range(2)]
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        for writer in writers:
            writer.communicate(timeout=60)

        assert [writer.returncode for writer in writers] == [0, 0]
        assert log.end_offset == log.durable_offset == 120
        assert log.stats()["flushes"] < 90

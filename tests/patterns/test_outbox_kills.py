"""An outbox of processes that are killed: each committed row is one record, and no other row is."""

import sqlite3
import time
from collections import Counter

import pytest
from parties import Party, Signal, kill_at_random
from waiting import until

from pylog import Broker
from pylog.patterns import Outbox

TOPICS = ("orders", "mails")
PARTITIONS = 2
KEYS = 5


class Play:
    """Two programs that write orders and what is to be said of them, two relays."""

    def __init__(self, place):
        self.data, self.path = place / "data", place / "app.db"
        self.outbox = Outbox(self.path)
        self.end = Signal(place / "end")
        with Broker(self.data) as broker:
            for topic in TOPICS:
                broker.create_topic(topic, PARTITIONS)
        db = self.database()
        with db:
            db.execute("PRAGMA journal_mode = WAL")
            self.outbox.create_table(db)
            db.execute("CREATE TABLE said (number INTEGER PRIMARY KEY, id, topic, key)")
        db.close()

    def database(self):
        db = sqlite3.connect(self.path, timeout=60)
        db.execute("PRAGMA synchronous = OFF")    # killed are processes, not the machine
        return db

    def write(self):
        db = self.database()
        count = 0
        while not self.end.is_given:
            count += 1
            try:
                with db:
                    for n in range(count % 3 + 1):
                        topic, key = TOPICS[n % 2], f"k{count % KEYS}"
                        row = self.outbox.add(db, topic, count, key)
                        db.execute("INSERT INTO said (id, topic, key) VALUES (?, ?, ?)",
                                   (row, topic, key))
                    if count % 5 == 0:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass
            time.sleep(0.0005)

    def relay(self):
        with Broker(self.data) as broker:
            with self.outbox.relay(broker, poll=0.001):
                self.end.wait()

    def count_said(self):
        db = self.database()
        (count,), = db.execute("SELECT count(*) FROM said")
        db.close()
        return count

    def outcome(self):
        """What was said by topic and key, in order; what there is."""
        with Broker(self.data) as broker:
            until(lambda: not self.outbox.relay(broker).run_once(), 60)
            assert self.outbox.parked() == []
            there = [(record.header("outbox_id").decode(), topic, record.key.decode())
                     for topic in TOPICS for record in broker.read(topic)]
        db = self.database()
        said = db.execute("SELECT id, topic, key FROM said ORDER BY number").fetchall()
        db.close()
        return said, there


def by_key(rows):
    return {place: [row for row, *where in rows if tuple(where) == place]
            for place in {tuple(where) for _, *where in rows}}


def survive(place, rng, rounds):
    play = Play(place)
    parties = [Party(play.write), Party(play.write), Party(play.relay), Party(play.relay)]
    kill_at_random(parties, rng, rounds)
    until(lambda: play.count_said() > 2 * rounds, 60)    # on a slow machine it takes longer
    play.end.give()
    for party in parties:
        party.wait()

    said, there = play.outcome()

    assert len(said) > 2 * rounds
    assert Counter(there) == Counter(said)
    assert by_key(there) == by_key(said)


@pytest.mark.slow
def test_killed_relays_and_programs_make_one_record_of_each_committed_row(tmp_path, rng):
    survive(tmp_path, rng, 20)


@pytest.mark.soak
def test_killed_relays_and_programs_make_one_record_of_each_in_hundreds_of_rounds(tmp_path, rng):
    survive(tmp_path, rng, 400)

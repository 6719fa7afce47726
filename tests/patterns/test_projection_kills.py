"""A projection equals a fold of the log, whoever is killed; its readers see whole transactions."""

import json
import sqlite3
import time
from contextlib import closing

import pytest
from parties import Diary, Party, Signal, kill_at_random

from pylog import Broker
from pylog.patterns import Bus, Projection

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY, payload TEXT);
CREATE TABLE IF NOT EXISTS counts (one INTEGER PRIMARY KEY, count INTEGER);
"""


def projection_of(broker, path):
    made = Projection(broker, "events", source=Bus(broker, "shop"), view=path, schema=SCHEMA)

    @made.on("thing.*")
    def happened(db, event):
        db.execute("INSERT INTO events VALUES (?, ?)", (event.record.offset, event.data["word"]))
        db.execute("INSERT INTO counts VALUES (1, 1) ON CONFLICT DO UPDATE SET count = count + 1")

    return made


def emit(place, over):
    number = 0
    with Bus(place / "data", "shop") as shop:
        while not over.is_given:
            shop.emit("thing.happened", {"word": f"w{number}"})
            number += 1
            time.sleep(0.0005)


def project(place, over):
    with Broker(place / "data") as broker, projection_of(broker, place / "views.db") as made:
        while not over.is_given:
            time.sleep(0.002)
            assert made.error is None, made.error


def rebuild(place, over):
    with Broker(place / "data") as broker:
        while not over.is_given:
            projection_of(broker, place / "views.db").rebuild()
            time.sleep(0.02)


def look(place, over, diary):
    """Both tables are of the same transaction."""
    while not (place / "views.db").exists():
        time.sleep(0.002)
    with closing(sqlite3.connect(place / "views.db", timeout=30)) as view:
        while not over.is_given:
            try:
                events, count = view.execute(
                    "SELECT (SELECT count(*) FROM events), (SELECT sum(count) FROM counts)"
                ).fetchone()
            except sqlite3.OperationalError:    # no tables yet
                continue
            diary.write(f"{events} {count or 0}")
            time.sleep(0.002)


def survive(place, rng, rounds):
    over = Signal(place / "over")
    diary = Diary(place / "looks")
    with Broker(place / "data") as broker:
        Bus(broker, "shop").close()
    parties = [Party(emit, place, over), Party(project, place, over), Party(project, place, over),
               Party(rebuild, place, over)]
    looker = Party(look, place, over, diary)
    try:
        kill_at_random(parties, rng, rounds)
    finally:
        over.give()
    for party in (*parties, looker):
        party.wait()

    with Broker(place / "data") as broker:
        projection_of(broker, place / "views.db").run_once()
        said = [(record.offset, json.loads(record.value)["word"]) for record in broker.read("shop")]
    with closing(sqlite3.connect(place / "views.db")) as view:
        assert view.execute("SELECT * FROM events ORDER BY number").fetchall() == said
        assert view.execute("SELECT sum(count) FROM counts").fetchone() == (len(said),)
    looks = [line.split() for line in diary.lines()]
    assert len(looks) > 3
    assert all(events == count for events, count in looks)


@pytest.mark.slow
def test_view_equals_a_fold_of_the_log_after_20_kills(tmp_path, rng):
    survive(tmp_path, rng, 20)


@pytest.mark.soak
def test_view_equals_a_fold_of_the_log_after_hundreds_of_kills(tmp_path, rng):
    survive(tmp_path, rng, 400)

"""The second part of flights.py: three processes share the flights, and one of them is killed.

A worker stores what it has counted, and how far it has come, in one record of its own topic. Who
takes a partition over reads the last of these and goes on there: so a flight that was counted
twice is in the totals once, whatever is killed when.
"""

import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter

import pylog
from pylog import TopicPartition

PARTITIONS, WORKERS, GROUP = 6, 3, "carriers"
SEND_AT_ONCE = 2000


def share(flights, folder, say, bar):
    """Returns nothing; ends the demo if a single flight is counted wrong."""
    with pylog.Broker(folder) as broker:
        for topic in ("flights", "totals"):
            broker.create_topic(topic, PARTITIONS)
        fork = multiprocessing.get_context("fork")
        workers = [fork.Process(target=work, args=(folder,), daemon=True) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        group = broker.group(GROUP)
        wait_until(lambda: len(owners := group.owners()) == PARTITIONS
                   and len(set(owners.values())) == WORKERS)
        say(f"{WORKERS} processes have joined the group {GROUP!r}, and share {PARTITIONS} "
            "partitions:\n" + members_of(group))
        send(broker, flights[:len(flights) // 2], bar)
        killed, moved, ms = kill_one(group, workers)
        say(f"[bold]kill -9[/] of process {killed}: its partitions {moved} have new owners\n"
            f"after [bold]{ms:.1f} ms[/]:\n" + members_of(group))
        send(broker, flights[len(flights) // 2:], bar)
        wait_until(lambda: sum(last_of(broker, p)["next"] for p in range(PARTITIONS))
                   == len(flights))
        check_totals(broker, flights, say)
        for worker in workers:
            worker.kill()
            worker.join()


def send(broker, flights, bar):
    """By carrier, so that all flights of one are in one partition, in order."""
    with pylog.Producer(broker) as producer:
        for start in range(0, len(flights), SEND_AT_ONCE):
            some = flights[start:start + SEND_AT_ONCE]
            producer.send_many("flights", [flight["dest"].encode() for flight in some],
                               keys=[flight["carrier"].encode() for flight in some])
            bar(len(some))


def work(folder):
    """One worker: counts the flights of the partitions that it is given, until it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # the demo ends it
    with pylog.Broker(folder) as broker:
        counted = {}

        class Listener:
            def on_partitions_assigned(self, partitions):
                for partition in partitions:
                    last = last_of(broker, partition.partition)
                    counted[partition] = Counter(last["totals"])
                    consumer.seek(partition, last["next"])

        consumer = pylog.Consumer(broker, group_id=GROUP, enable_auto_commit=False)
        consumer.subscribe(["flights"], listener=Listener())
        while True:
            for partition, records in consumer.poll(timeout_ms=1000).items():
                counted[partition].update(record.key.decode() for record in records)
                total = {"next": records[-1].offset + 1, "totals": counted[partition]}
                broker.append("totals", json.dumps(total).encode(), partition=partition.partition)


def last_of(broker, partition):
    """The last total of a partition: how far it was counted, and what."""
    for record in broker.read("totals", start=-1, partition=partition):
        return json.loads(record.value)
    return {"next": 0, "totals": {}}


def kill_one(group, workers):
    """Kills a worker that has something: (pid, its partitions, ms until all had a new owner)."""
    roster = group.roster()[1]
    number, member = random.choice([(n, m) for n, m in roster.members.items()
                                    if n in group.owners().values()])
    had = [p for p, owner in group.owners().items() if owner == number]
    started = time.perf_counter()
    os.kill(member.pid, signal.SIGKILL)
    wait_until(lambda: all(group.owners().get(p, number) != number for p in had))
    ms = (time.perf_counter() - started) * 1000
    return member.pid, [partition.partition for partition in had], ms


def members_of(group):
    """A line for each member: its process and its partitions."""
    owners, (_, roster) = group.owners(), group.roster()
    return "\n".join(
        f"  process {member.pid:<8} partitions "
        f"{sorted(p.partition for p, owner in owners.items() if owner == number)}"
        for number, member in roster.members.items())


def check_totals(broker, flights, say):
    totals = Counter()
    for partition in range(PARTITIONS):
        totals.update(last_of(broker, partition)["totals"])
    true = Counter(flight["carrier"] for flight in flights)
    if totals != true:
        raise SystemExit(f"counted {totals}, and there are {true}")
    behind = sum(broker.log(*TopicPartition("flights", p)).end_offset for p in range(PARTITIONS))
    busiest = ", ".join(f"{carrier} {count:,}" for carrier, count in totals.most_common(4))
    say(f"All {behind:,} flights are counted, each once, by carrier: {busiest}, ...")


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited for {seconds} s in vain; run the demo again, and tell us")
        time.sleep(0.0002)

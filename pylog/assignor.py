"""Who of a group reads which partition: the four strategies of Kafka, as functions.

    assign("range", members, counts, {}) -> {member: [TopicPartition, ...]}

`members` says which topics each has subscribed, `counts` how many partitions each topic has. Every
strategy is a function of what it is given and nothing else, so any member may work it out.

| strategy | gives | moves, when members come or go |
|---|---|---|
| "range" | of each topic a run of neighbours: co-partitioned topics meet in one member | many |
| "roundrobin" | all partitions of all topics in turn | nearly all |
| "sticky", "cooperative-sticky" | as even as can be | as few as can be |

All are carried out incrementally here: a partition that stays with its member is never revoked, so
the two sticky ones are the same. Sources: Kafka's RangeAssignor, RoundRobinAssignor; KIP-54, 429.
"""

from collections.abc import Collection, Mapping

from pylog.errors import ConfigurationError
from pylog.topic import TopicPartition

STRATEGIES = ("cooperative-sticky", "range", "roundrobin", "sticky")

Assignment = dict[int, list[TopicPartition]]
Members = Mapping[int, Collection[str]]


def check_strategy(name: str) -> str:
    """Returns it. Raises ConfigurationError for what is none."""
    if name in STRATEGIES:
        return name
    raise ConfigurationError(
        f"partition_assignment_strategy={name!r} is unknown; use one of "
        f"{', '.join(map(repr, STRATEGIES))}", option="partition_assignment_strategy", value=name)


def assign(strategy: str, members: Members, counts: Mapping[str, int],
           before: Mapping[int, Collection[TopicPartition]]) -> Assignment:
    """What each member is to have. before: what each has now; the sticky ones keep to it.

    Members are taken in the order of their numbers. Topics that nobody has subscribed, or that have
    no partitions, are left out.

        >>> assign("range", {1: ["t"], 2: ["t"]}, {"t": 3}, {})[1]
        [TopicPartition(topic='t', partition=0), TopicPartition(topic='t', partition=1)]
    """
    if strategy == "range":
        return _range(members, counts)
    if strategy == "roundrobin":
        return _round_robin(members, counts)
    return _sticky(members, counts, before)


def _all_partitions(counts: Mapping[str, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for topic in sorted(counts)
            for number in range(counts[topic])]


def _range(members: Members, counts: Mapping[str, int]) -> Assignment:
    result: Assignment = {member: [] for member in sorted(members)}
    for topic in sorted(counts):
        readers = [member for member in result if topic in members[member]]
        start = 0
        for place, member in enumerate(readers):
            share = counts[topic] // len(readers) + (place < counts[topic] % len(readers))
            result[member] += [TopicPartition(topic, start + n) for n in range(share)]
            start += share
    return result


def _round_robin(members: Members, counts: Mapping[str, int]) -> Assignment:
    result: Assignment = {member: [] for member in sorted(members)}
    turns, turn = list(result), 0
    for partition in _all_partitions(counts):
        for step in range(len(turns)):
            member = turns[(turn + step) % len(turns)]
            if partition.topic in members[member]:
                result[member].append(partition)
                turn += step + 1
                break
    return result


def _sticky(members: Members, counts: Mapping[str, int],
            before: Mapping[int, Collection[TopicPartition]]) -> Assignment:
    result: Assignment = {}
    taken: set[TopicPartition] = set()
    for member in sorted(members):
        kept = [p for p in before.get(member, ()) if p not in taken
                and p.partition < counts.get(p.topic, 0) and p.topic in members[member]]
        result[member] = sorted(kept)
        taken.update(kept)
    readers = {topic: [m for m in result if topic in members[m]] for topic in counts}
    free = [p for p in _all_partitions(counts) if p not in taken and readers[p.topic]]
    # Those with the fewest possible readers first: the others can go elsewhere.
    for partition in sorted(free, key=lambda p: len(readers[p.topic])):
        least = min(readers[partition.topic], key=lambda m: len(result[m]))
        result[least].append(partition)
    while move := _one_move(result, readers):
        partition, giver, taker = move
        result[giver].remove(partition)
        result[taker].append(partition)
    return {member: sorted(partitions) for member, partitions in result.items()}


def _one_move(result: Assignment, readers: Mapping[str, list[int]],
              ) -> tuple[TopicPartition, int, int] | None:
    """A partition that makes the shares more even by going from one member to another."""
    for giver in sorted(result, key=lambda m: -len(result[m])):
        for topic in sorted({p.topic for p in result[giver]}):
            taker = min(readers[topic], key=lambda m: len(result[m]))
            if len(result[taker]) + 1 < len(result[giver]):
                return max(p for p in result[giver] if p.topic == topic), giver, taker
    return None

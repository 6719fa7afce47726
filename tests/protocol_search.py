"""Tries every interleaving of the steps of protocol_model.py, with a kill before each, by breadth.

A state is the world and, of each process, what it has before it. What one process can do depends on
its own half and the world alone, so it is worked out once for each such pair and then looked up:
that is what lets plain Python walk some hundred thousand states a second. Two writers with the same
jobs are one pair in either order. A step marked `*` is done before anybody else's next one (a kill
before it all the same): what it touches is guarded by the lock, so that its order among the steps
of others cannot be told.
"""

from collections import deque
from typing import NamedTuple

from protocol_steps import do_step, kill
from protocol_world import VISIBLE, Actor, Violation, Waits, World, check, check_change

BITS = 20           # of a number that stands for one half of a state
KILL = "killed before"


class Setup(NamedTuple):
    writers: tuple          # of each: its jobs
    others: tuple = ()      # likewise
    kills: int = 0


class Result(NamedTuple):
    states: int
    transitions: int
    killed_before: set      # names of steps
    violation: str | None
    trace: list             # (process, step, what it left)


class Numbers(dict):
    """Numbers for what is seen, in the order of its coming."""

    def __init__(self):
        super().__init__()
        self.things = []

    def __missing__(self, thing):
        self[thing] = number = len(self.things)
        self.things.append(thing)
        return number


class Search:
    def __init__(self, setup, merges_equals=True, takes_private_first=True):
        self.worlds, self.actors = Numbers(), Numbers()
        self.known = {}             # (world, actor): what the actor can do there
        self.is_private = []        # of each actor: may its next step go before all others
        self.is_holder = []         # of each actor: does it hold the append lock
        self.killed_before = set()
        deletes = any("delete_before" in jobs for jobs in setup.writers + setup.others)
        self.private = () if not takes_private_first else ("*",) if deletes else ("*", "~")
        self.names, actors = [], []
        for jobs in setup.writers:
            self.names.append(f"writer {len(self.names) + 1}")
            actors.append(new_actor(jobs))
        for jobs in setup.others:
            self.names.append(jobs[0])
            actors.append(new_actor(jobs))
        alike = len(setup.writers) if len(set(setup.writers)) == 1 and merges_equals else 0
        self.alike = alike if alike > 1 else 0
        self.first = (self.worlds[World({"kills": setup.kills}).freeze()],
                      *(self.number_of(actor) for actor in actors))

    def number_of(self, actor):
        number = self.actors[actor.freeze()]
        if number == len(self.is_holder):
            self.is_holder.append(actor.holds)
            self.is_private.append(bool(actor.todo) and actor.todo[0].mark in self.private)
        return number

    def moves(self, world, actor):
        """[(label, world, actor)] of one process; a violation is a label alone."""
        key = world << BITS | actor
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = list(self.work_out(world, actor))
        return found

    def work_out(self, world, actor):
        thing = self.actors.things[actor]
        todo = Actor.thaw(thing).todo
        if not todo:
            return
        before = World.thaw(self.worlds.things[world])
        for label, act in ((todo[0].name, do_step), (KILL, kill)):
            w, me = World.thaw(self.worlds.things[world]), Actor.thaw(thing)
            try:
                act(w, me)
                if w.files != before.files or w.truth != before.truth or w.stale != before.stale:
                    check_change(before, w)
                    w.rename_values()
                frozen = w.freeze()
                if frozen not in self.worlds:
                    check(w)
            except Waits:
                continue
            except Violation as violation:
                yield label, str(violation), None
                continue
            if act is kill:
                self.killed_before.add(todo[0].name)
            yield label, self.worlds[frozen], self.number_of(me)

    def tidy(self, state):
        """The same state with equal writers in one order."""
        return (state[0], *sorted(state[1:1 + self.alike]), *state[1 + self.alike:])

    def run(self):
        first = self.tidy(self.first)
        came_from, queue, transitions = {first: None}, deque([first]), 0
        slots = range(1, len(first))
        known, is_private, is_holder = self.known, self.is_private, self.is_holder
        while queue:
            state = queue.popleft()
            world, chosen, holders = state[0] << BITS, slots, 0
            for slot in slots:
                actor = state[slot]
                holders += is_holder[actor]
                if is_private[actor]:
                    chosen = (slot,)
            if holders > 1:
                return self.result(came_from, transitions, state, "two hold the lock")
            moved = transitions
            for slot in chosen:
                moves = known.get(world | state[slot])
                if moves is None:
                    moves = self.moves(state[0], state[slot])
                for label, new_world, new_actor in moves:
                    transitions += 1
                    if new_actor is None:
                        return self.result(came_from, transitions, state, new_world, slot, label)
                    after = self.tidy((new_world, *state[1:slot], new_actor, *state[slot + 1:]))
                    if after not in came_from:
                        came_from[after] = state
                        queue.append(after)
            if transitions == moved and self.is_stuck(state):
                return self.result(came_from, transitions, state, "all wait for a lock")
        return self.result(came_from, transitions)

    def is_stuck(self, state):
        waiting = [Actor.thaw(self.actors.things[actor]).todo for actor in state[1:]]
        return any(todo and todo[0].name in ("lock", "lock_flush") for todo in waiting)

    def look(self, jobs):
        """Lets a process that changes nothing look at all that the others were found to do.

        It is not multiplied into their states. Of those it is shown what it can see, and of their
        steps each that changes this, from whatever state: so more orders than there can be."""
        seen, after = Numbers(), {}
        shows = [seen[tuple(world[field] for field in VISIBLE)]
                 for world in self.worlds.things]
        for key, moves in self.known.items():
            old = shows[key >> BITS]
            after.setdefault(old, set()).update(shows[new] for _, new, actor in moves
                                                if actor is not None and shows[new] != old)
        world_of = {show: world for world, show in enumerate(shows)}
        first = shows[self.first[0]], self.number_of(new_actor(jobs))
        reached, queue, transitions = {first}, deque([first]), 0
        while queue:
            show, actor = queue.popleft()
            steps = [(new, actor) for new in after.get(show, ())]
            for _, text, new in self.moves(world_of[show], actor):
                if new is None:
                    return Result(len(reached), transitions, set(), text, [])
                steps.append((show, new))
            transitions += len(steps)
            for step in steps:
                if step not in reached:
                    reached.add(step)
                    queue.append(step)
        return Result(len(reached), transitions, set(), None, [])

    def result(self, came_from, transitions, last=None, violation=None, slot=0, label=""):
        trace = [self.entry(last, slot, label)] if slot else []
        while last is not None and came_from[last] is not None:
            trace.append(self.tell(came_from[last], last))
            last = came_from[last]
        return Result(len(came_from), transitions, self.killed_before, violation, trace[::-1])

    def entry(self, state, slot, label):
        if label == KILL:
            actor = Actor.thaw(self.actors.things[state[slot]])
            label = f"is killed before {actor.todo[0].name}"
        return self.names[slot - 1], label

    def tell(self, before, after):
        for slot in range(1, len(before)):
            for label, world, actor in self.moves(before[0], before[slot]):
                if (world, *before[1:slot], actor, *before[slot + 1:]) == after:
                    return self.entry(before, slot, label)
        raise AssertionError("no step leads from a state to its successor")


def new_actor(jobs):
    actor = Actor({"jobs": jobs, "mapped": 0})
    actor.begin()
    return actor


def search(setup):
    """With a trace of who did what, and so without merging equal writers, if it comes to that."""
    result = Search(setup).run()
    return Search(setup, merges_equals=False).run() if result.violation else result

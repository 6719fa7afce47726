"""The protocol of the control page: every interleaving, mistakes that it must find, and the C.

protocol_model.py says what is stored in which order, protocol_search.py tries all orders in which
processes may come and die. Prints (pytest -s, or after a failure) how much it has seen, and of each
planted mistake the shortest way into it.
"""

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from drivers import built
from faults import forget_boot
from protocol_model import LISTS
from protocol_search import Search, Setup, search
from protocol_steps import do_step, kill
from protocol_world import VISIBLE, Actor, World

SOURCES = Path(__file__).parent.parent / "csrc"
APPENDS = ("append", "append")
OF_READERS = ("read", "reread", "look again", "list")
TABLE = "{:44}{:>10,}{:>13,}{:>8.1f}"

# What is tried, and what the process does that looks on.
SETUPS = {
    "2 writers x 2 appends, a flusher, 2 kills":
        (Setup((APPENDS, APPENDS), (("flush",),), kills=2), "read"),
    "append_many beside appends, 2 kills":
        (Setup((("append_many", "append"), ("append",)), kills=2), "read"),
    "append_many twice, delete_before twice, 1 kill":
        (Setup((("append_many", "append_many"),), (("delete_before", "delete_before"),), kills=1),
         "reread"),
}
LARGER = {
    "2 writers x 2 appends, 2 kills, a reader among them":
        (Setup((APPENDS, APPENDS), (("read",),), kills=2), "read"),
    "3 writers x 2 appends, 2 kills":
        (Setup((APPENDS,) * 3, kills=2), "read"),
    "2 writers x 2 appends, 2 flushes, 2 kills":
        (Setup((APPENDS, APPENDS), (("flush", "flush"),), kills=2), "read"),
    "2 writers x append_many and append, 3 kills":
        (Setup((("append_many", "append"), ("append_many", "append")), kills=3), "read"),
    "4 appends, delete_before twice, 2 kills":
        (Setup((APPENDS * 2,), (("delete_before", "delete_before"),), kills=2), "reread"),
}


def exhaust(name, setup, looker):
    """Tries all of it; returns before which steps somebody was killed."""
    found = Search(setup)
    start = time.process_time()
    result = found.run()
    searched = time.process_time()
    looked = found.look((looker,))
    end = time.process_time()
    print(TABLE.format(name, result.states, result.transitions, searched - start))
    print(TABLE.format(f"    a process that does \"{looker}\" beside", looked.states,
                       looked.transitions, end - searched))
    assert not result.violation, result
    assert not looked.violation, looked
    return result.killed_before


@pytest.mark.slow
def test_no_order_and_no_two_deaths_lose_or_change_a_record():
    print(f"\n{'':44}{'states':>10}{'transitions':>13}{'seconds':>8}")
    killed_before = set()
    for name, (setup, looker) in SETUPS.items():
        killed_before |= exhaust(name, setup, looker)
    steps = {step.name for name, steps in LISTS.items() if name not in OF_READERS
             for step in steps if step.mark not in ("?", "-")}
    assert killed_before == steps


@pytest.mark.soak
@pytest.mark.parametrize("name", LARGER)
def test_more_writers_and_more_deaths_do_not_either(name):
    exhaust(name, *LARGER[name])


def shown(found):
    """All that a reader could ever see there."""
    found.run()
    return {tuple(world[field] for field in VISIBLE) for world in found.worlds.things}


def test_steps_that_nobody_sees_may_go_first():
    setup = Setup((APPENDS, ("append",)), (("flush",),), kills=1)

    assert shown(Search(setup)) == shown(Search(setup, takes_private_first=False))


# ---- planted mistakes ---------------------------------------------------------------------------

def moved(name, step, before):
    """The list of that name with one step moved."""
    steps = [other for other in LISTS[name] if other.name != step]
    at = [other.name for other in steps].index(before)
    step = next(other for other in LISTS[name] if other.name == step)
    return (*steps[:at], step, *steps[at:])


def without(name, *left_out):
    return tuple(step for step in LISTS[name] if step.name not in left_out)


def only_listing():
    return tuple(step._replace(name="list_doomed") if step.name == "make_odd" else step
                 for step in without("delete_before", "make_even"))


def zeroing():
    step, = LISTS["void leftover"]
    return (step._replace(name="zero_leftover"),)


# mistake: the list that is wrong, its wrong steps, who finds it, what they find
MISTAKES = {
    "publishing before the copy": (
        "append", lambda: moved("append", "publish", "copy_half"),
        Setup((("append",),)), "not wholly written"),
    "never letting the lock go": (
        "append", lambda: without("append", "unlock"),
        Setup((("append",), ("append",))), "all wait for a lock"),
    "believing the position after a death": (
        "repair", lambda: without("repair", "derive"),
        Setup((("append",) * 3,), kills=1), "not wholly written|another record"),
    "moving the sealed mark before the header is done": (
        "seal", lambda: moved("seal", "mark_sealed", "fill_header"),
        Setup((("append",),), (("flush",),)), "below the sealed mark"),
    "storing the length before the CRC": (
        "seal", lambda: moved("seal", "fill_length", "fill_crc"),
        Setup((("append",),), (("flush",),)), "fails its CRC"),
    "publishing the durable offset before the sync": (
        "flush", lambda: moved("flush", "publish_durable", "choose_files"),
        Setup((("append",),), (("flush",),)), "the disk has only 0"),
    "counting a roll before the rename": (
        "roll", lambda: moved("roll", "count_roll", "rename"),
        Setup((("append_many",) * 2,), (("read",),)), "no batch is there"),
    "removing segments without the list sequence": (
        "delete_before", only_listing,
        Setup((("append_many",) * 2,), (("delete_before",), ("read",))), "does not come back"),
    "forgetting a leftover batch before the disk has": (
        "void leftover", zeroing,
        Setup((("append_many",), ("append",), ("append",)), kills=2), "after a power cut"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_planted_mistake_is_found_by_the_shortest_way(mistake, monkeypatch):
    name, steps, setup, message = MISTAKES[mistake]
    assert not search(setup).violation
    monkeypatch.setitem(LISTS, name, steps())

    result = search(setup)

    print(f"\n{mistake}: {result.violation}; {len(result.trace)} steps")
    for who, what in result.trace:
        print(f"    {who:10} {what}")
    assert re.search(message, result.violation)


# ---- the model and the C ------------------------------------------------------------------------

# Points that no step of the model stands for, by how they begin, and why.
NOT_MODELLED = {
    "create-": "the first segment, before there is a page",
    "recover-": "the first opener, alone under its flock; its order is RECOVERY, below",
    "before-clean-mark": "the last closer, alone under its flock; test_kills.py kills at each",
    "clean-marked": "the same",
    "alter-": "options that change: no record is moved; test_kills.py kills at each",
    "erase-": "how a log ends, and nothing follows; test_kills.py kills at each",
    "process-": "who lives: a file of the broker, not the control page",
    "shared-": "how a file of the broker is made, alone under its flock",
    "table-": "a table of the broker's, under a mutex of its own",
    "lease-": "the leases of a share group; test_share_leases.py kills at each",
    "batch-copied": "a batch sealed elsewhere and copied: append_many with a copy for an encoding",
}
# What is done before an operation, and the operation.
SCENES = [
    ([], "append"),
    (["append"], "append"),
    (["append", "fill_batch"], "append"),
    (["append", "fill"], "append"),
    (["append"], "append_many"),
    (["append_many"], "append_many"),
    (["append"], "flush"),
    (["append_many"], "flush"),
    (["append", "flush", "append"], "flush"),
    (["append", "fill", "append"], "flush"),
    (["append", "fill", "append"], "delete_before"),
    (["append", "fill", "append@"], "append"),
]


def begin(word, mapped):
    actor = Actor({"jobs": (word,), "mapped": mapped})
    actor.begin()
    return actor


def is_filled(w, word):
    if word == "fill_batch":
        return w.count == w.batch_most
    return w.position + 2 > w.capacity


class Stage:
    """The model, acting what tests/c/trace.c does with a log."""

    def __init__(self):
        self.w, self.mapped = World({"kills": 99, "capacity": 15, "batch_most": 5}), None

    def act(self, word):
        """Returns the points that this process passes."""
        operation, is_of_another, point = word.partition("@")
        if operation.startswith("fill"):
            self.act("append")
            while not is_filled(self.w, operation):
                self.act("append")
            return None
        is_prepared = is_of_another and point != "map-locked"
        actor = begin(operation, self.w.active if is_prepared else
                      None if is_of_another else self.mapped)
        passed = ()
        while actor.jobs:
            if point and point in (*passed, *actor.todo[0].points):
                kill(self.w, actor)
                return None
            passed += do_step(self.w, actor)
        assert not point, f"{word}: the model passes {passed}"
        if not is_of_another:
            self.mapped = actor.mapped
        return None if is_of_another else list(passed)

    def act_all(self, words):
        return [passed for word in words if (passed := self.act(word)) is not None]


@pytest.fixture(scope="module")
def driver():
    """Runs trace.c on a directory; returns how it ended."""
    program = built("build/trace") / "trace"
    return lambda path, *words: subprocess.run([program, path, *words], capture_output=True,
                                               text=True, check=False)


def points_passed(done):
    """By each operation that trace.c has printed."""
    assert done.returncode == 0, f"{done.args}: {done.stderr}"
    return [line.split()[1:] for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def trace(driver):
    """Runs trace.c on a new log: the points that each of its own operations passed."""
    def run(path, words):
        path.mkdir()
        done = driver(path, *words)
        shutil.rmtree(path)
        return points_passed(done)

    return run


def points_of_the_core():
    found = (re.findall(r'PL_POINT\("([a-z-]+)"\)', source.read_text())
             for source in SOURCES.glob("*.c"))
    return {point for points in found for point in points}


def test_every_fault_point_of_the_core_is_a_step_of_the_model():
    modelled = {point for steps in LISTS.values() for step in steps for point in step.points}
    left_out = {point for point in points_of_the_core() if point.startswith(tuple(NOT_MODELLED))}

    assert modelled == points_of_the_core() - left_out


@pytest.mark.parametrize(("before", "operation"), SCENES)
def test_core_takes_the_steps_of_the_model_in_its_order(tmp_path, trace, before, operation):
    words = [*before, operation]

    assert trace(tmp_path / "log", words) == Stage().act_all(words)


def deaths():
    """Each scene, each point of its operation: what was done up to the death there."""
    for before, operation in SCENES:
        stage = Stage()
        stage.act_all(before)
        if stage.mapped is not None:
            for point in dict.fromkeys(stage.act(operation)):
                yield [*before, f"{operation}@{point}"]


def deaths_in_repair():
    """The same within a repair that finds an open batch, one that finds whole ones left over."""
    for word in ("append@before-unlock", "append_many@before-publish"):
        stage = Stage()
        stage.act_all(["append", word])
        for point in dict.fromkeys(stage.act("append")):
            if point.startswith(("repair-", "seal-", "before-seal", "after-seal")):
                yield ["append", word, f"append@{point}"]


@pytest.mark.slow
def test_core_repairs_as_the_model_after_a_death_at_any_point(tmp_path, trace):
    ways = [*deaths(), *deaths_in_repair()]
    for number, words in enumerate(ways):
        words = [*words, "append", "append_many"]
        assert trace(tmp_path / f"log{number}", words) == Stage().act_all(words), words
    print(f"\n{len(ways)} deaths")


def test_leftover_of_a_dead_writer_is_synced_away_after_a_death_in_its_repair(tmp_path, trace):
    words = ["append", "append_many@before-publish", "append@repair-before-sync", "append"]

    *_, last = trace(tmp_path / "log", words)

    assert "repair-before-sync" in last


# ---- recovery, which the model leaves out -------------------------------------------------------

# Before which point each of its effects must be there, and not before an earlier one.
RECOVERY = {
    "recover-set-aside": "cut bytes set aside",
    "recover-trimmed": "the file trimmed",
    "recover-before-meta": "a segment begun",
    "recover-before-page": "log.meta replaced",
}


def effects(path, before):
    """Which of a recovery's effects are in a directory that was a copy of `before`."""
    def changed(name):
        return (path / name).read_bytes() != (before / name).read_bytes()
    first, *others = sorted(path.glob("*.log"))
    found = {
        "cut bytes set aside": any(path.glob("*.cut-*")),
        "the file trimmed": changed(first.name),
        "a segment begun": bool(others),
        "log.meta replaced": changed("log.meta"),
        "the page replaced": changed("control"),
    }
    return [effect for effect, is_there in found.items() if is_there]


@pytest.fixture
def torn(tmp_path, driver):
    """A log as a power cut leaves it: whole batches, then one that is none."""
    path = tmp_path / "torn"
    path.mkdir()
    points_passed(driver(path, "append_many", "append"))
    forget_boot(path)
    return path


def test_recovery_takes_its_steps_in_this_order(tmp_path, driver, torn):
    shutil.copytree(torn, tmp_path / "copy")

    assert points_passed(driver(tmp_path / "copy", "open")) == [[*RECOVERY]]
    assert effects(tmp_path / "copy", torn) == [*RECOVERY.values(), "the page replaced"]


@pytest.mark.parametrize("point", RECOVERY)
def test_recovery_that_dies_has_done_what_comes_before_and_no_more(tmp_path, driver, torn, point):
    steps = list(RECOVERY)
    shutil.copytree(torn, tmp_path / "copy")

    assert driver(tmp_path / "copy", f"open@{point}").returncode == -signal.SIGKILL
    assert effects(tmp_path / "copy", torn) == [
        RECOVERY[step] for step in steps[:steps.index(point) + 1]]
    assert points_passed(driver(tmp_path / "copy", "open"))[0][-1] == steps[-1]


def test_opening_without_a_loss_makes_the_page_alone(tmp_path, driver):
    path = tmp_path / "log"
    path.mkdir()

    assert points_passed(driver(path, "open", "append")) == [
        ["create-segment-made", "recover-before-page"], Stage().act_all(["append"])[0]]
    assert points_passed(driver(path, "open")) == [["recover-before-page"]]    # after a death

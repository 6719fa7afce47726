"""The protocol of the control page: every interleaving, mistakes that it must find, and the C.

protocol_model.py says what is stored in which order, protocol_search.py tries all orders in which
processes may come and die. Prints (pytest -s, or after a failure) how much it has seen, and of each
planted mistake the shortest way into it.
"""

import re
import time

import pytest
from protocol_model import LISTS
from protocol_search import Search, Setup, search

APPENDS = ("append", "append")
OF_READERS = ("read", "reread", "look again", "list")
TABLE = "{:44}{:>10,}{:>13,}{:>8.1f}"

# What is tried, the process that looks on, and who has more than one order to be killed in.
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
    start = time.monotonic()
    found = Search(setup)
    result = found.run()
    assert not result.violation, result
    looked = found.look((looker,))
    assert not looked.violation, looked
    print(TABLE.format(name, result.states, result.transitions, time.monotonic() - start))
    print(TABLE.format(f"    with a process that does \"{looker}\"", looked.states,
                       looked.transitions, 0))
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

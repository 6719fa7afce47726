"""What each step of protocol_model.py does to the world `w` and to the process `me` that takes it.

A step that has to wait raises Waits. A decision may put more steps before the rest.
"""

from contextlib import suppress
from itertools import pairwise

from protocol_world import DEAD, FREE, HELD, Batch, Half, Violation, Waits, walk

# The steps that do nothing but store (and take note of what they loaded).
STORES = {
    "leave": lambda w, me: unlock(w, me),
    "open_active": lambda w, me: me.note(opened=w.active),
    "open_header": lambda w, me: w.write(me.mapped, w.position, Batch(w.end)),
    "move_into": lambda w, me: w.set(batch_position=w.position, position=w.position + 1),
    "copy_half": lambda w, me: w.write(me.mapped, w.position, Half(w.fresh_value())),
    "copy_rest": lambda w, me: finish_copy(w, me, w.position),
    "encode_rest": lambda w, me: finish_copy(w, me, w.position + 2),
    "count_record": lambda w, me: w.set(position=w.position + 1, count=w.count + 1),
    "move_behind": lambda w, me: w.set(position=w.position + 3),
    "mark_sealed": lambda w, me: w.set(sealed=w.end),
    "go_to_start": lambda w, me: w.set(position=0, batch_position=0),
    "publish_base": lambda w, me: w.set(active=me.mapped),
    "count_roll": lambda w, me: w.set(rolls=w.rolls + 1, counted=True),
    "count_again": lambda w, me: w.set(rolls=w.rolls + 1, counted=True),
    "revive": lambda w, me: w.set(state="live"),
    "give_offset": lambda w, me: None,      # acknowledged; `check` asks for all that is published
    "load_end": lambda w, me: me.note(**{"end": w.end, "from": w.durable}),
    "load_state": lambda w, me: me.note(is_live=w.state == "live"),
    "take_end": lambda w, me: me.note(end=w.end, base=w.active),
    "sync_names": lambda w, me: w.set(disk_names=w.names),
    "publish_durable": lambda w, me: w.set(durable=me.notes["end"]),
    "move_start": lambda w, me: w.set(start=w.end),
    "make_even": lambda w, me: w.set(sequence=w.sequence + 1),
    "load_sealed": lambda w, me: me.note(sealed=w.sealed),
}

# ---- the steps: writers -------------------------------------------------------------------------

def lock(w, me):
    if w.lock == HELD:
        raise Waits
    me.notes["is_dead"], w.lock, me.holds = w.lock == DEAD, HELD, True


def enter(w, me):
    if me.notes.pop("is_dead"):
        w.state = "broken"
    if w.state == "broken":
        me.do_first("repair")
    elif me.mapped != w.active:
        me.do_first("map")


def unlock(w, me):
    w.lock, me.holds = FREE, False


def map_opened(w, me):
    opened = me.notes.pop("opened")
    if me.notes.pop("is_dead"):
        w.state = "broken"
    elif w.active == opened:
        me.mapped = opened


def make_room(w, me):
    if me.notes.pop("is_unready", False):
        me.do_first("come again")
    elif w.position + 1 + (me.jobs[0] == "append_many") + 1 > w.capacity:
        me.do_first("roll")


def join_batch(w, me):
    me.notes["count"] = 1
    if not 0 < w.count < w.batch_most:
        me.do_first("open batch")
        seal(w, me)


def seal(w, me):
    if w.count:
        me.do_first("seal")
        me.notes["batch"] = w.batch_position, w.count


def finish_copy(w, me, at):
    w.write(me.mapped, at, w.files[me.mapped][at].value)


def encode_half(w, me):
    w.write(me.mapped, w.position, Batch(w.end))
    w.write(me.mapped, w.position + 1, w.fresh_value())
    w.write(me.mapped, w.position + 2, Half(w.fresh_value()))
    me.note(batch=(w.position, 2), count=2)


def publish(w, me):
    for value in w.files[me.mapped][w.position - me.notes["count"]:w.position]:
        if len(w.truth) != w.end:
            raise Violation(f"offset {w.end} is given out twice")
        w.truth += (value,)
        w.end += 1
    w.stale = tuple(old for old in w.stale if w.truth[old[2]:][:len(old[3])] != old[3])
    for _, _, offset, _ in w.stale:
        if offset < w.end:
            raise Violation(f"offset {offset} shows a new record, and after a power cut might "
                            "show the one of a dead writer, whose batch the disk may hold")


def forget_batch(w, me):
    w.count, w.batch_position = 0, w.position
    me.notes.pop("batch", None)


def change_header(w, me, **fields):
    at, _ = me.notes["batch"]
    header = w.files[me.mapped][at]
    w.write(me.mapped, at, header._replace(**fields))
    return at, header.base


def fill_header(w, me):
    change_header(w, me, count=me.notes["batch"][1])


def fill_crc(w, me):
    at, count = me.notes["batch"]
    change_header(w, me, crc=(count, w.files[me.mapped][at + 1:at + 1 + count]))


def fill_length(w, me):
    at, base = change_header(w, me, length=me.notes["batch"][1])
    if base == w.end:   # nobody was told of it yet
        values = w.files[me.mapped][at + 1:at + 1 + me.notes["batch"][1]]
        w.stale = tuple(sorted({*w.stale, (me.mapped, at, base, values)}))


def rename(w, me):
    if w.end in w.names:
        raise Violation(f"a roll replaces the segment {w.end}")
    me.mapped = w.end
    w.names = (*w.names, w.end)
    w.files[w.end] = (None,) * w.capacity
    w.counted = False


# ---- the steps: who finds an owner dead ---------------------------------------------------------

def finish_base(w, me):
    newest = w.names[-1]
    if me.mapped != newest:     # as yet without a window that is faulted in for writing
        me.notes["is_unready"] = True
    me.mapped = w.active = newest


def tail_from(w, me, at, offset):
    position, batch_position, count = at, at, 0
    for batch, _, values in walk(w.files[me.mapped], at, offset, w.end, w.sealed):
        length = w.files[me.mapped][batch].length
        position = batch + 1 + len(values)
        batch_position, count = (position, 0) if length else (batch, len(values))
    return position, batch_position, count


def derive(w, me):
    """By a walk, from the batch that the hint names if it is there and leads to the end."""
    cells, hint = w.files[me.mapped], w.batch_position
    header = cells[hint] if hint < w.capacity else None
    if w.end <= me.mapped:
        tail = 0, 0, 0
    else:
        tail = tail_from(w, me, 0, me.mapped)
        if isinstance(header, Batch) and me.mapped <= header.base < w.end:
            with suppress(Violation):
                tail = tail_from(w, me, hint, header.base)
    w.position, w.batch_position, w.count = tail


def find_leftovers(w, me):
    """Whole batches behind the end, which nobody was told of."""
    at, cells, found = w.position, w.files[me.mapped], []
    while at < w.capacity and isinstance(cells[at], Batch) and cells[at].length:
        found.append(at)
        at += 1 + cells[at].length
    if found:
        me.notes["leftovers"] = tuple(found)
        me.do_first("sync leftovers")
        me.do_first("void leftover", len(found))


def void_leftover(w, me):
    """Its length stays: if we die, the next one finds it again, and syncs again."""
    at, *rest = me.notes["leftovers"]
    w.write(me.mapped, at, w.files[me.mapped][at]._replace(is_void=True))
    me.notes["leftovers"] = tuple(rest)


def zero_leftover(w, me):
    """As void_leftover, forgetfully: a mistake that was in the C."""
    at, *rest = me.notes["leftovers"]
    w.write(me.mapped, at, None)
    me.notes["leftovers"] = tuple(rest)


def sync_leftovers(w, me):
    w.sync(me.mapped)
    del me.notes["leftovers"]


# ---- the steps: a flusher -----------------------------------------------------------------------

def lock_flush(w, me):
    if w.flush_lock == HELD:
        raise Waits
    w.flush_lock = me.notes["flush_lock"] = HELD


def load_base_if_sealed(w, me):
    if me.notes.pop("is_live") and w.sealed == me.notes["end"]:
        me.notes["base"] = w.active
    else:
        me.do_first("seal for flush")


def choose_files(w, me):
    if me.notes["end"] <= me.notes["from"]:
        me.todo = me.todo[-1:]
    elif me.notes["from"] > me.notes["base"]:
        me.notes["next"] = me.notes["base"]
        me.do_first("sync")
    else:
        me.notes["next"] = me.notes["from"]
        me.do_first("names")
        me.do_first("sync")


def sync_file(w, me):
    load_words(w, me)
    if me.todo[0].name == "list_directory":
        me.todo = me.todo[1:]
        list_directory(w, me)
    bases = me.listed[1]
    base = max([base for base in bases if base <= me.notes["next"]], default=bases[0])
    w.sync(base)
    later = [other for other in bases if other > base]
    if base < me.notes["base"] and later:
        me.notes["next"] = later[0]
        me.do_first("sync")


def unlock_flush(w, me):
    w.flush_lock = FREE
    del me.notes["flush_lock"]


# ---- the steps: who deletes ---------------------------------------------------------------------

def lock_maintenance(w, me):
    if w.maintenance == HELD or w.end <= w.start:
        raise Waits
    if w.maintenance == DEAD and w.sequence % 2:
        w.sequence += 1
    w.maintenance = me.notes["maintenance"] = HELD


def make_odd(w, me):
    w.sequence += 1
    list_doomed(w, me)


def list_doomed(w, me):
    bases = sorted(w.names)
    me.notes["doomed"] = tuple(base for base, following in pairwise(bases)
                               if following <= w.start)
    me.do_first("unlink", len(me.notes["doomed"]))


def unlink(w, me):
    doomed, *rest = me.notes["doomed"]
    w.names = tuple(name for name in w.names if name != doomed)
    me.notes["doomed"] = tuple(rest)


def unlock_maintenance(w, me):
    w.maintenance, w.kept = FREE, w.names[0]
    del me.notes["maintenance"]


# ---- the steps: a reader ------------------------------------------------------------------------

def load_readable(w, me):
    """Reads the last record that is there; or, as `reread`, the first there ever was."""
    if not w.end:
        raise Waits
    me.note(end=w.end, offset=0 if me.jobs[0] == "reread" else w.end - 1, kept=w.kept)


def load_start(w, me):
    if me.notes["offset"] < w.start:
        me.todo = ()


def load_words(w, me):
    words = w.rolls, w.sequence
    if not me.listed or me.listed[0] != words:
        me.notes["words"] = words
        me.do_first("list")
    elif me.listed[1][0] < me.notes.get("kept", 0):
        raise Violation("a reader looked, and holds on to a segment deleted before: its space "
                        "does not come back")


def list_directory(w, me):
    me.listed = me.notes.pop("words"), w.names


def open_segment(w, me):
    offset, bases = me.notes["offset"], me.listed[1]
    below = [base for base in bases if base <= offset]
    if not below:
        if offset >= w.start:
            raise Violation(f"the segment that holds offset {offset} is missing")
        me.todo = ()
    elif below[-1] not in w.names:     # gone since the listing: ENOENT, and once more
        me.listed = None
        me.do_first("look again")
    else:
        later = [base for base in bases if base > offset]
        me.note(base=below[-1], next=later[0] if later else me.notes["end"])


def find_batch(w, me):
    n = me.notes
    end = min(n["end"], n["next"])
    for at, offset, values in walk(w.files[n["base"]], 0, n["base"], end, min(n["sealed"], end)):
        if offset <= n["offset"] < offset + len(values):
            n["at"] = at + 1 + n["offset"] - offset
            return


def read_record(w, me):
    n = me.notes
    if w.files[n["base"]][n["at"]] != w.truth[n["offset"]]:
        raise Violation(f"offset {n['offset']} shows another record")


# ---- a step, a kill -----------------------------------------------------------------------------

STEPS = {**STORES, **globals(), "-": lambda w, me: None}


def do_step(w, me):
    """The first step of `me`, and the decisions that are part of it. Returns the fault points that
    the C passes on the way."""
    step, me.todo = me.todo[0], me.todo[1:]
    points = step.points
    STEPS[step.name](w, me)
    while me.todo and me.todo[0].mark in ("?", "-"):
        step, me.todo = me.todo[0], me.todo[1:]
        points += step.points
        STEPS[step.name](w, me)
    if not me.todo:
        me.jobs = me.jobs[1:] if me.jobs[0] not in ("read", "reread") else me.jobs
        me.begin()
    return points


def kill(w, me):
    """The kernel frees what it held, marked; another process goes on with the next job."""
    if not w.kills or me.jobs[0] in ("read", "reread"):
        raise Waits
    w.kills -= 1
    w.lock = DEAD if me.holds else w.lock
    w.flush_lock = DEAD if "flush_lock" in me.notes else w.flush_lock
    w.maintenance = DEAD if "maintenance" in me.notes else w.maintenance
    me.__init__({"jobs": me.jobs[1:]})
    me.begin()

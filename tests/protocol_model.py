"""The control page as a specification: who stores what in which order, and what a death leaves.

A *step* is one store that another process could see, or the loads that go with it. Before every
step its process may be killed; the kernel then marks the locks it held. `search` tries all
interleavings. The tables below are the steps. At the right stand the fault points (PL_POINT) that
the C passes just before a step: test_protocol.py lays them beside what the C really passes, so a
kill before a step here is a kill at that point there. Steps without a point only load, or are the
halves of what one memcpy does there.

    * before a step   it touches only what the append lock guards: nobody else can tell when
    ? before a step   a decision by the one that holds the lock, part of the step before it

Smaller than life: a header or a record is one cell; a segment has CAPACITY cells, an open batch
BATCH records; a sync covers its file as it is at one instant; the next segment is always prepared.

Orders of memory. Here every store is seen at once by all, in the order of the program. The C has
two places where that needs a word:

    place                             kept by                          in this model
    record bytes -> end -> its reader store-release, load-acquire      a given: program order
    bytes, CRC -> length -> reader    store-release, acquire by end    a given: program order
    end -> bells | bells -> end       membarrier(2) in the waiter      not modelled: a sleeper
    (ringer)       (waiter)           (full fences, store before load) wakes after 100 ms anyway

x86-64 keeps the first two by itself; the third, a store that a later load overtakes, is the one
reordering that it makes. It can cost a waiter time and never a record, so it is left out.
"""

from typing import NamedTuple

STEPS = {
    "append": """
        lock
        enter               locked
        ?make_room
        ?join_batch
        copy_half           before-copy
        copy_rest
        *count_record       after-copy
        publish             before-publish
        unlock              after-publish before-unlock
        *give_offset        after-unlock
    """,
    "append_many": """
        lock
        enter               locked
        ?make_room
        ?seal
        encode_half
        encode_rest
        fill_header         many-before-seal
        fill_crc            seal-filled
        fill_length         seal-summed
        *move_behind        seal-finished
        publish             before-publish
        *forget_batch       after-publish
        mark_sealed         before-sealed
        unlock              after-sealed before-unlock
        *give_offset        after-unlock
    """,
    "open batch": """
        open_header         before-open
        *move_into          batch-opened
    """,
    "seal": """
        fill_header         before-seal
        fill_crc            seal-filled
        fill_length         seal-summed
        *forget_batch       seal-finished after-seal
        mark_sealed         before-sealed
        -                   after-sealed
    """,
    "roll": """
        ?seal
        rename              roll-before-rename
        *go_to_start        roll-after-rename
        publish_base        roll-before-base
        count_roll          roll-before-count
    """,
    "map": """
        leave
        open_active
        lock
        map_opened          map-locked
        unlock
        lock
        enter               locked
    """,
    "repair": """
        finish_base         repair-begun
        count_again         repair-before-count
        *derive             repair-before-derive
        -                   repair-derived
        ?seal
        *forget_batch
        mark_sealed         before-sealed
        -                   after-sealed
        ?find_leftovers
        revive              repair-before-live
    """,
    "void leftover": """
        void_leftover       repair-before-void
    """,
    "sync leftovers": """
        sync_leftovers      repair-before-sync
    """,
    "flush": """
        lock_flush
        load_end            flush-locked
        load_state
        load_base_if_sealed
        ?choose_files
        publish_durable     synced
        unlock_flush        durable-published
    """,
    "seal for flush": """
        lock
        enter               locked
        ?seal
        *take_end
        unlock              before-unlock
        -                   after-unlock
    """,
    "sync": """
        sync_file           before-sync
    """,
    "names": """
        sync_names          before-sync-names
    """,
    "delete_before": """
        lock_maintenance
        move_start          delete-locked
        make_odd            delete-started
        make_even           delete-removed
        unlock_maintenance
    """,
    "unlink": """
        unlink              remove-segment
    """,
    "look again": """
        load_words
        ~open_segment
    """,
    "list": """
        list_directory
    """,
    "read": """
        load_readable
        load_sealed
        ~load_start
        load_words
        ~open_segment
        find_batch
        read_record
    """,
}


class Step(NamedTuple):
    name: str
    points: tuple
    mark: str


def parse(table):
    lines = [line.split() for line in table.split("\n") if line.strip()]
    return tuple(Step(name.strip("*?~"), tuple(points), name[0] if name[0] in "*?~-" else "")
                 for name, *points in lines)


LISTS = {name: parse(table) for name, table in STEPS.items()}
LISTS["reread"] = LISTS["read"]

"""The control page as a specification: who stores what in which order, and what a death leaves.

A *step* is one store that another process could see, or the loads that go with it. Before every
step its process may be killed; the kernel then marks the locks it held. The tables below are the
steps, protocol_steps.py says what each does, protocol_world.py what must hold in every state, and
protocol_search.py tries all interleavings. At the right stand the fault points (PL_POINT) that the
C passes just before a step: test_protocol.py lays them beside what the C really passes, so a kill
before a step here is a kill at that point there. Steps without a point only load or lock, or are
the halves of what one memcpy does there.

    *step   it touches only what the append lock guards: nobody else can tell when
    ~step   it loads what delete_before alone changes: the same, where nobody deletes
    ?step   a decision, part of the step before it: it may put another list before the rest
    -       no step, only points

Smaller than life: a header or a record is one cell; a segment has five cells, an open batch two
records; a sync covers its file as it is at one instant; the next segment is always prepared.

Orders of memory. Here every store is seen at once by all, in the order of the program. What the
C needs for that, and what is left out:

    place                                kept in the C by               in this model
    record bytes, end | end, bytes       store-release, load-acquire    a given
    bytes, CRC, length | length, bytes   store-release, the end's load  a given
    end, bell map | bell map, end        a full fence on either side,   left out
      (who rings)   (who waits)            membarrier(2) by the waiter

x86-64 keeps the first two by itself, so a step order is what can be wrong there. The third needs
a fence even so: a load may overtake an earlier store. Without it a waiter may sleep its 100 ms
through; no record is lost or changed by that, and doorbells are not among the words here.
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
        *move_behind        many-sealed
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
        *forget_batch       after-seal
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
    "come again": """
        unlock              before-unlock
        -                   after-unlock
        lock
        enter               locked
        ?make_room
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

"""What the files of a log say, batch by batch and entry by entry: the items of `pylog dump`.

An item is a dict with `kind` and `file`, made of plain types:

    file      size                   begins each file
    batch     position, size, and the fields of its header by our names
    record    the envelope of one record, of the batch before it or of the open one
    damage    position, size, what   bytes that are no batch
    tail      position, size, what   not finished: the open batch, preallocated zeros
    offset    position, offset, batch_position      an entry of .index
    time      position, timestamp, offset           an entry of .timeindex

It stands on walk.py, so hostile files are fine; it opens no log, takes no lock, writes nothing.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pylog import _native
from pylog.compression import NAMES
from pylog.envelope import to_json
from pylog.errors import LogError, UnsupportedFormatError
from pylog.indexes import ENTRIES, entries
from pylog.names import CUT_NAME, is_segment
from pylog.walk import (
    HEADER_BYTES,
    OPEN_BATCH_BYTES,
    Walker,
    Window,
    is_open_header,
    open_batch,
    raw_header,
    read_small,
    sealed,
)

Item = dict[str, Any]

FILE_NAME = re.compile(r"([0-9]{20})\.(?:(log)(?:\.cut-[0-9]+)?|(index|timeindex))")
INDEX_BYTES_MAX = 1 << 30
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
APPEND_TIME, TRANSACTIONAL, CONTROL = 0x08, 0x10, 0x20


def dump_items(path: Path, with_records: bool = False) -> Iterator[Item]:
    """The items of a log's directory, or of one of its files.

    Raises UnsupportedFormatError where there is neither. Cost: reads each byte once, in a few MiB.
    """
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        segments = [name for name in names if is_segment(name)]
        if not segments:
            raise UnsupportedFormatError(
                f"there is no log in {path}: it holds no segment files; name the directory of one "
                "log", path=str(path))
        for segment in segments:
            for suffix in (".log", *ENTRIES):
                if (name := segment.removesuffix(".log") + suffix) in names:
                    yield from _file_items(path / name, with_records)
        return
    yield from _file_items(path, with_records)


def _file_items(path: Path, with_records: bool) -> Iterator[Item]:
    found = FILE_NAME.fullmatch(path.name)
    if not found:
        raise UnsupportedFormatError(
            f"{path} is named like no file of batches or index entries; name a log's directory, "
            "or twenty digits with .log, .index or .timeindex", path=str(path))
    base = int(found[1])
    items = (_segment_items(path, base, with_records) if found[2]
             else _index_items(path, base, f".{found[3]}"))
    for item in items:
        yield {"kind": item.pop("kind"), "file": path.name, **item}


def line_of(item: Item) -> str:
    """An item as a line of text."""
    kind = item["kind"]
    if kind == "file":
        return f"{item['file']}: {item['size']:,} bytes"
    if kind == "record":
        return f"    {json.dumps(item['record'], ensure_ascii=False)}"
    where = f"  byte {item['position']}:"
    if kind == "batch":
        return f"{where} {_batch_text(item)}"
    if kind == "offset":
        return f"{where} offset {item['offset']} ends the batch at byte {item['batch_position']}"
    if kind == "time":
        return f"{where} {instant(item['timestamp'])} is the latest up to offset {item['offset']}"
    return f"{where} {item['size']:,} bytes {kind}: {item['what']}"


def instant(milliseconds: int) -> str:
    """A timestamp as UTC, or as the number that it is where no calendar has it."""
    try:
        when = EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return str(milliseconds)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _batch_text(item: Item) -> str:
    texts = [
        f"offsets {item['base_offset']} to {item['last_offset']}",
        f"{item['records']} record{'s' * (item['records'] != 1)}, {item['size']:,} bytes",
        f"epoch {item['leader_epoch']}",
        f"{instant(item['base_timestamp'])} to {instant(item['max_timestamp'])}",
        f"crc {item['crc']}",
    ]
    if item["codec"] != "none":
        texts.append(item["codec"] + " (not readable by this version)" * (not item["is_readable"]))
    if item["timestamp_type"] != "create":
        texts.append(f"timestamp of {item['timestamp_type']}")
    if item["producer_id"] >= 0:
        texts.append(f"producer {item['producer_id']} epoch {item['producer_epoch']} sequence "
                     f"{item['base_sequence']}")
    texts += [word for word in ("transactional", "control") if item[f"is_{word}"]]
    return ", ".join(texts)


# ---- segments -----------------------------------------------------------------------------------


def _segment_items(path: Path, base: int, with_records: bool) -> Iterator[Item]:
    window = Window(path)
    try:
        yield {"kind": "file", "size": window.size}
        walker, expected = Walker(window), base
        # What a recovery cut begins with any offset of its segment.
        if CUT_NAME.fullmatch(path.name) and window.size >= HEADER_BYTES:
            expected = max(base, raw_header(window.view(0, HEADER_BYTES))["baseOffset"])
        while (found := walker.step()) is not None:
            if found["fault"]:
                start = walker.position
                item = _broken(walker, expected, found["fault"])
                if item:
                    yield item
                    if with_records and item.get("records"):
                        yield from _open_records(window, item)
                    if walker.position == start:
                        return
                continue
            position = walker.position - found["size"]
            expected = found["last_offset"] + 1
            view = window.view(position, found["size"])[: found["size"]]
            yield _batch_item(view, position, is_readable=not found["unread"])
            if with_records and not found["unread"]:
                for record in _native.decode_records(view):
                    yield {"kind": "record", "record": json.loads(to_json(record))}
    finally:
        window.close()


def _batch_item(view: memoryview, position: int, is_readable: bool) -> Item:
    raw = raw_header(view)
    attributes = raw["attributes"]
    return {
        "kind": "batch",
        "position": position,
        "size": len(view),
        "base_offset": raw["baseOffset"],
        "last_offset": raw["baseOffset"] + raw["lastOffsetDelta"],
        "records": raw["recordsCount"],
        "codec": NAMES.get(attributes & 7, "none"),
        "is_readable": is_readable,
        "leader_epoch": raw["partitionLeaderEpoch"],
        "base_timestamp": raw["baseTimestamp"],
        "max_timestamp": raw["maxTimestamp"],
        "timestamp_type": "append" if attributes & APPEND_TIME else "create",
        "producer_id": raw["producerId"],
        "producer_epoch": raw["producerEpoch"],
        "base_sequence": raw["baseSequence"],
        "is_transactional": bool(attributes & TRANSACTIONAL),
        "is_control": bool(attributes & CONTROL),
        "crc": f"{raw['crc']:08x}",
    }


def _broken(walker: Walker, expected: int, fault: str) -> Item | None:
    """What stands where no whole batch does; moves behind it if one follows.

    None: a writer has finished it meanwhile, look again.
    """
    start, window = walker.position, walker.window
    item: Item = {"kind": "tail", "position": start, "size": window.size - start}
    if window.is_zero(start):
        return item | {"what": "preallocated, all zero"}
    view = window.view(start, OPEN_BATCH_BYTES)
    is_open = is_open_header(view, expected)
    count, size = open_batch(view, 1 << 31) if is_open else (0, 0)
    open_text = f"an open batch of {count} record{'s' * (count != 1)}, not sealed and without a CRC"
    if is_open and window.is_zero(start + size):
        return item | {"records": count, "what": f"{open_text}: {size} bytes; zeros follow"}
    if walker.resync(expected):
        behind, walker.position = walker.position, start
        window.forget()
        again = walker.step()
        if again and not again["fault"]:
            walker.position = start
            return None
        walker.position = behind
        return item | {"kind": "damage", "size": behind - start,
                       "what": f"{fault}; whole batches follow"}
    if is_open:
        return item | {"records": count, "what": f"{open_text}; what follows is a writer's at "
                       "work, or of one that died"}
    return item | {"kind": "damage", "what": f"{fault}; no whole batch follows in this file"}


def _open_records(window: Window, item: Item) -> Iterator[Item]:
    """The records of an open batch, which nothing proves."""
    position = item["position"]
    batch = sealed(window.view(position, OPEN_BATCH_BYTES), item["records"])
    try:
        records = list(_native.decode_records(batch))
    except LogError as error:
        yield {"kind": "damage", "position": position, "size": len(batch),
               "what": f"the records of the open batch do not parse: {error}"}
        return
    for record in records:
        yield {"kind": "record", "record": json.loads(to_json(record))}


# ---- indexes ------------------------------------------------------------------------------------


def _index_items(path: Path, base: int, suffix: str) -> Iterator[Item]:
    data = read_small(path, INDEX_BYTES_MAX)
    entry, end = ENTRIES[suffix], len(data.rstrip(b"\0"))
    yield {"kind": "file", "size": len(data)}
    for number, (first, second) in enumerate(entries(entry, data)):
        position = number * entry.size
        if position >= end:
            yield {"kind": "tail", "position": position, "size": len(data) - position,
                   "what": "preallocated, all zero"}
            return
        if suffix == ".index":
            yield {"kind": "offset", "position": position, "offset": base + first,
                   "batch_position": second}
        else:
            yield {"kind": "time", "position": position, "timestamp": first,
                   "offset": base + second}
    if rest := len(data) % entry.size:
        yield {"kind": "damage", "position": len(data) - rest, "size": rest,
               "what": "no whole entry"}

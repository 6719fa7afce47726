"""Damage planted in closed logs of several small segments, whose batches we know byte by byte."""

import re

import pylog
from pylog import _native
from pylog.walk import LAYOUT, Walker, Window

HEADER = LAYOUT["records"]
SEGMENT_BYTES = 4096


def write_small_log(path, records=150, **options):
    """Rolled some times; batches of both ways in; timestamps that rise, and once fall."""
    options = {"segment_bytes": SEGMENT_BYTES, "index_interval_bytes": 256, **options}
    with pylog.Log(path, **options) as log:
        for i in range(records):
            timestamp = 1_700_000_000_000 + (i * 10 if i != 7 else 0)
            if i % 3:
                log.append(b"value %d" % i * 3, key=b"%d" % (i % 5), timestamp=timestamp)
            else:
                log.append_many([b"value %d" % i * 3], timestamps=[timestamp],
                                headers=[[("source", b"test")]])
    return path


def segments(path):
    return sorted(path.glob("*.log"))


def batches(segment):
    """[(position, fields)] of one segment file."""
    window = Window(segment)
    walker, found = Walker(window), []
    while (batch := walker.step()) is not None:
        found.append((walker.position - batch["size"], batch))
    window.close()
    return found


def patch(path, position, data):
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(data)


def flip(path, position, bit=0):
    data = path.read_bytes()
    patch(path, position, bytes([data[position] ^ 1 << bit]))


def rewrite_meta(path, **values):
    """log.meta with other values and a right CRC."""
    text = (path / "log.meta").read_text().rpartition("crc32c ")[0]
    for name, value in values.items():
        text = re.sub(rf"^{name} .*$", f"{name} {value}", text, flags=re.MULTILINE)
    text += f"crc32c {_native.crc32c(text.encode()):08x}\n"
    (path / "log.meta").write_text(text)


def only(report, severity="damage"):
    """The one finding of a report."""
    assert len(report.findings) == 1, report
    assert report.findings[0].severity == severity, report
    return report.findings[0]

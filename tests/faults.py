"""What a power cut, a copy or a bad disk makes of a log's files.

A test notes the files of a log in use now and then (`snapshot`); `reboot_image` writes what a disk
may hold when the power goes: each 4 KiB page as it was at the last flush or at any time since, a
size, a name or a small file that was never synced as it was or as it became. What pylog syncs is
taken at its word: log.meta at every change, names at every change of log.meta and at a flush.
"""

import shutil
import struct
from dataclasses import dataclass

from pylog import _native

PAGE = 4096
PREPARED = "segment.prepared"
IDENTITY = struct.Struct("<QII16sQQQQ")     # pl_page_identity: how a control page begins


@dataclass
class Snapshot:
    """The files at one moment, and the offset that the control page said was durable."""

    files: dict[str, bytes]
    durable_floor: int


def snapshot(log):
    """Notes the files of a live log, the control page first: it promises what the others hold.

    The housekeeper may be at work: a file may go meanwhile, and a flush come in between, of which
    log.meta tells. So what is durable is asked last.
    """
    files = {"control": (log.path / "control").read_bytes()}
    files = files_of(log.path) | files
    return Snapshot(files, log.durable_offset)


def files_of(path):
    files = {}
    for one in path.iterdir():
        try:
            files[one.name] = one.read_bytes()
        except FileNotFoundError:
            continue
    return files


def rewrite_meta(path, change):
    """Puts change(text) in place of log.meta's text, with a checksum that is right."""
    meta = path / "log.meta"
    text = change(meta.read_text().rpartition("crc32c ")[0])
    meta.write_text(f"{text}crc32c {_native.crc32c(text.encode()):08x}\n")


def forget_boot(path):
    """Makes what log.meta and the control page say about the boot somebody else's, in place."""
    rewrite_meta(path, lambda text: _replace_line(text, "clean_boot", "0" * 32))
    control = path / "control"
    if control.exists() and control.stat().st_size >= IDENTITY.size:
        with open(control, "r+b") as file:
            file.seek(16)
            file.write(b"another boot....")


def _replace_line(text, name, value):
    lines = [f"{name} {value}" if line.startswith(name + " ") else line
             for line in text.splitlines()]
    return "\n".join(lines) + "\n"


def is_segment(name):
    return name.endswith(".log")


def torn(rng, versions, size):
    """`size` bytes, each page from one of the versions; a page that one lacks is zero there."""
    favourite = rng.choice(versions)
    pages = []
    for position in range(0, size, PAGE):
        version = favourite if rng.random() < 0.5 else rng.choice(versions)
        page = version[position:min(position + PAGE, size)]
        pages.append(page + bytes(min(PAGE, size - position) - len(page)))
    return b"".join(pages)


def reboot_image(rng, target, lives, inode_is_kept=False, meta_is_synced=True):
    """Writes to `target` what may be on disk when the power went after the last of `lives`.

    lives: snapshots, the first durable and the others not. inode_is_kept: as after a reboot, so
    that the durable floor counts; else as after a copy. meta_is_synced: false after the close of
    an "os" log, which alone leaves log.meta to the kernel.
    """
    durable, last = lives[0], lives[-1]
    target.mkdir()
    files = {}
    for name in _segments_kept(rng, durable, last):
        versions = [life.files.get(name, b"") for life in lives]
        if name not in durable.files:       # it was the prepared file before its rename
            versions = [version or life.files.get(PREPARED, b"")
                        for version, life in zip(versions, lives, strict=True)]
        floor = len(durable.files.get(name, b""))
        sizes = [len(version) for version in versions]
        size = rng.choice([sizes[-1], max(sizes), max(floor, rng.choice(sizes))])
        files[name] = torn(rng, versions, size)
    _small_files(rng, lives, files)
    if not meta_is_synced:
        files["log.meta"] = rng.choice([life.files["log.meta"] for life in lives[-2:]])
    for name, data in files.items():
        (target / name).write_bytes(data)
    forget_boot(target)
    if inode_is_kept:
        adopt_control(target)


def _segments_kept(rng, durable, last):
    """Names are made in order: of those that no sync covers, a first part is there."""
    made = sorted(name for name in last.files if is_segment(name) and name not in durable.files)
    kept = len(made) if rng.random() < 0.6 else rng.randrange(len(made) + 1)
    removed = sorted(name for name in durable.files if is_segment(name) and name not in last.files)
    back = len(removed) if rng.random() < 0.6 else rng.randrange(len(removed) + 1)
    return [name for name in last.files if is_segment(name) and name in durable.files] \
        + made[:kept] + removed[back:]


def _small_files(rng, lives, files):
    durable, last = lives[0], lives[-1]
    # Synced at each change: there is no older one.
    files["log.meta"] = last.files["log.meta"]
    known = [life.files["control"] for life in lives
             if life.durable_floor <= durable.durable_floor]
    control = rng.choice([None, b"", bytes(8192), torn(rng, known, 8192), known[-1], known[0]])
    if control is not None:
        files["control"] = control
    for name in last.files:
        if name.endswith((".index", ".timeindex", "-checkpoint")):
            data = last.files[name]
            choice = rng.choice([None, b"", data, bytes(len(data)), data[:len(data) // 2],
                                 durable.files.get(name)])
            if choice is not None:
                files[name] = choice
    if rng.random() < 0.3:
        files[PREPARED] = rng.choice([life.files.get(PREPARED, b"") for life in lives])
    if rng.random() < 0.2:
        files[rng.choice(["log.meta.tmp", "control.tmp"])] = rng.randbytes(100)


def adopt_control(path):
    """Makes the control page bear the device and inode of its file, as it would after a reboot."""
    control = path / "control"
    if not control.exists() or control.stat().st_size < IDENTITY.size:
        return
    info = control.stat()
    with open(control, "r+b") as file:
        fields = list(IDENTITY.unpack(file.read(IDENTITY.size)))
        fields[4:6] = info.st_dev, info.st_ino
        file.seek(0)
        file.write(IDENTITY.pack(*fields))


def copy_log(source, target):
    """What `cp -r` makes of a directory."""
    shutil.copytree(source, target)
    return target


def flip(path, bit):
    """Turns over one bit of a file, counted from its start."""
    with open(path, "r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))

"""The codecs of a batch: one call a batch, into well-kept libraries. Nothing is hand-written here.

lz4 is Kafka's framing of it: one frame of independent blocks of 64 KiB, no checksum, no content
size (FLG 60 BD 40), which is all that Kafka's Java client reads (KIP-57).
"""

import zlib
from typing import Any

import lz4.frame

from pylog.errors import ConfigurationError, UnsupportedCodecError

PIECE_BYTES = 16_384    # the first that is asked for, at least: a batch as pylog makes it

CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
NAMES = {number: name for name, number in CODECS.items()}


def codec_number(name: str | None, option: str = "compression") -> int:
    """The number of a codec that can be written: None and "none" are 0, "lz4" is 3."""
    if name is None or name == "none":
        return 0
    if name not in CODECS:
        raise ConfigurationError(
            f"{option}={name!r} is unknown; use 'lz4', 'gzip' or None", option=option, value=name
        )
    if name not in ("gzip", "lz4"):
        raise UnsupportedCodecError(
            f"{option}={name!r} cannot be written yet (snappy and zstd are to come); use 'lz4', "
            "'gzip' or None",
            codec=name,
        )
    return CODECS[name]


def compress(codec: int, payload: bytes) -> bytes:
    """The records of a batch, compressed. Cost: lz4 about 1 GB/s, gzip 30 MB/s; without the GIL."""
    if codec == CODECS["gzip"]:
        return zlib.compress(payload, wbits=31)
    frame: bytes = lz4.frame.compress(
        payload,
        block_size=lz4.frame.BLOCKSIZE_MAX64KB,
        block_linked=False,
        content_checksum=False,
        block_checksum=False,
        store_size=False,
    )
    return frame


def decompress(codec: int, payload: Any, limit: int) -> bytes | None:
    """The records of a compressed batch; None when the bytes do not decompress, or to over `limit`.

    A batch that claims more than `limit` bytes is a bomb or damage: at most that much is made.
    """
    if codec == CODECS["lz4"]:
        return _decompress_lz4(payload, limit)
    if codec == CODECS["gzip"]:
        return _decompress_gzip(payload, limit)
    name = NAMES.get(codec, str(codec))
    raise UnsupportedCodecError(
        f"the batch is compressed with {name}, which this version cannot read yet (it reads lz4 "
        "and gzip); have its producer write it anew with one of those",
        codec=name,
    )


def _decompress_lz4(payload: Any, limit: int) -> bytes | None:
    decompressor = lz4.frame.LZ4FrameDecompressor()
    pieces: list[bytes] = []
    size, more = 0, max(PIECE_BYTES, 4 * len(payload))
    try:
        # What may come out the library takes beforehand, so each piece is as large as what was
        # there before it; one byte beyond the limit tells that there is more.
        while not decompressor.eof and size <= limit:
            piece = decompressor.decompress(payload, max_length=min(more, limit + 1 - size))
            if not piece and not decompressor.eof:    # the frame is cut off
                return None
            pieces.append(piece)
            size += len(piece)
            payload, more = b"", size
    except (RuntimeError, ValueError):
        return None
    return b"".join(pieces) if decompressor.eof and size <= limit else None


def _decompress_gzip(payload: Any, limit: int) -> bytes | None:
    decompressor = zlib.decompressobj(wbits=31)
    try:
        records = decompressor.decompress(payload, limit)
    except zlib.error:
        return None
    return records if decompressor.eof else None

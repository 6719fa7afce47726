"""Claimant: who has claimed something in a topic, so that others can tell when he has died.

    slot:nonce:number    a process, as in `broker.processes`, and the number of the claim in it
"""

from typing import Any


def claimant_of(processes: Any, number: int) -> bytes:
    """This process, which has joined `processes`."""
    slot, nonce = processes.me or (0, 0)
    return b"%d:%d:%d" % (slot, nonce, number)


def place_of(name: bytes) -> tuple[int, int]:
    """Slot and nonce. Raises ValueError for what is no claimant."""
    slot, nonce, _ = map(int, name.split(b":"))
    if not (0 <= slot < 1 << 31 and 0 <= nonce < 1 << 64):
        raise ValueError(f"no claimant: {name!r}")
    return slot, nonce

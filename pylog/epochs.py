"""Leader epochs: which offsets bear which, and where a log may have gone on after a loss."""

from dataclasses import dataclass

# So many are reserved, at least, whenever an epoch begins (PL_RESERVE_OFFSETS, csrc/pl_log.h).
RESERVED_OFFSETS = 16 << 20


@dataclass(frozen=True, slots=True)
class Epochs:
    """Pairs (epoch, its first offset), both rising; none where nothing is known."""

    pairs: tuple[tuple[int, int], ...] = ()

    @classmethod
    def from_checkpoint(cls, data: bytes) -> "Epochs":
        """Of Kafka's leader-epoch-checkpoint; none when it is not one."""
        try:
            version, count, *lines = data.decode("ascii").splitlines()
            pairs = [line.split(" ") for line in lines]
            epochs = tuple((int(epoch), int(start)) for epoch, start in pairs)
        except ValueError:
            return cls()
        return cls(epochs) if version == "0" and count == str(len(epochs)) else cls()

    def to_checkpoint(self) -> bytes:
        """Kafka's leader-epoch-checkpoint (LeaderEpochCheckpointFile): version, count, lines."""
        lines = [f"{epoch} {start}" for epoch, start in self.pairs]
        return "\n".join(["0", str(len(lines)), *lines, ""]).encode()

    def at(self, offset: int) -> tuple[int, int]:
        """The epoch that `offset` must bear, and where its interval ends."""
        end = 1 << 63
        for epoch, start in reversed(self.pairs):
            if start <= offset:
                return epoch, end
            end = start
        return self.pairs[0][0], end if len(self.pairs) == 1 else self.pairs[1][1]

    def has_start(self, offset: int) -> bool:
        """Whether one begins there."""
        return any(start == offset for _, start in self.pairs)

    def may_follow_loss(self, offset: int) -> bool:
        """Whether a recovery that lost a tail may have gone on there.

        It goes on behind all reserved offsets, and those were so many when the epoch that it ends
        began. What is missing in front of an earlier start was removed.
        """
        earlier = [start for _, start in self.pairs if start < offset]
        return self.has_start(offset) and (
            not earlier or offset - max(earlier) >= RESERVED_OFFSETS)

"""What a checker is given in tests, made by code that it does not share, and what it found."""

from handmade import make_batch, make_record

from pylog import _native
from pylog.stress.editor import Stamp

RUN = 77


def stamp(sequence, producer=0, incarnation=1, run=RUN, filler=b"some filler"):
    """A value made by the editor, which shares no code with the checker."""
    return Stamp(run, producer, incarnation, 0, sequence, 0, 0, 0, 5).to_bytes(filler) + filler


def batch_of(values, base=0, epoch=0, **more):
    """One batch of these values; `more` as handmade.make_batch has it."""
    payload = b"".join(make_record(value, None, offset_delta=at)
                       for at, value in enumerate(values))
    return make_batch(payload, len(values), base, epoch=epoch, **more)


def stamps(sequences, base=0, epoch=0, **more):
    return batch_of([stamp(n) for n in sequences], base, epoch, **more)


def taken(*batches, checker=None):
    checker = checker or _native.Checker(RUN)
    for batch in batches:
        checker.take_batch(batch)
    return checker


def found(checker):
    return {name: count for name, count in checker.figures()["found"].items() if count}

"""Forged diaries: what a group can do wrong, written into the diaries of a group that did nothing.

The judgement must tell of a good group nothing, and of each forgery its name and the diary that
shows it. A forgery is a change of the text below: it shares no code with who reads it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Process 501 is member 1 and reads to 3; it lets go, and member 2 of process 502 reads on to 5.
# Process 503 looks on.
GOOD = """\
501 own 10 1 4 0 -1
501 work 11 1 4 0 0
501 work 12 1 4 0 1
501 ask 13 1 4 0 2
501 done 14 1 4 0 2
501 work 15 1 4 0 2
501 ask 16 1 4 0 3
501 done 17 1 4 0 3
503 look 18 0 0 0 3
503 end 19 0 0 0 5
501 drop 20 1 5 0 -1
502 own 30 2 5 0 3
502 work 31 2 5 0 3
502 work 32 2 5 0 4
502 ask 33 2 5 0 5
502 done 34 2 5 0 5
"""
ENDS = {0: 5}    # of the partition


@dataclass(frozen=True, slots=True)
class Forgery:
    """What is put in the place of what, and what the judgement says of it. process: whose diary
    shows it; 0: none. implies: what else is rightly said of it. good: the diaries that are changed.
    """

    anomaly: str
    what: str
    process: int
    changes: tuple[tuple[str, str], ...]
    implies: frozenset[str] = frozenset()
    good: str = GOOD

    @property
    def text(self) -> str:
        """All diaries."""
        text = self.good
        for old, new in self.changes:
            if old not in text:
                raise LookupError(f"the good diaries have no line {old!r}")
            text = text.replace(old, new)
        return text


FORGERIES = (
    Forgery("unhandled-record", "the last record is given to nobody", 0,
            (("502 work 32 2 5 0 4\n", ""),)),
    Forgery("double-owner", "the second member has the generation of the first", 502,
            (("502 own 30 2 5", "502 own 30 2 4"), ("502 work 31 2 5", "502 work 31 2 4"))),
    Forgery("double-owner", "the first member never lets go", 502,
            (("501 drop 20 1 5 0 -1\n", ""),)),
    Forgery("double-owner", "the first member lets go when the second one has it", 502,
            (("501 drop 20", "501 drop 31"),)),
    Forgery("double-owner", "the first member was not stopped, and has lost it to the second", 502,
            (("501 drop 20", "501 lost 31"),)),
    Forgery("zombie-commit", "the first member commits after the second has it", 501,
            (("502 done 34 2 5 0 5\n",
              "502 done 34 2 5 0 5\n501 ask 35 1 4 0 5\n501 done 36 1 4 0 5\n"),)),
    Forgery("commit-regression", "the second member commits less than the first had", 502,
            (("502 ask 33 2 5 0 5", "502 ask 33 2 5 0 2"),)),
    Forgery("commit-regression", "the second member finds nothing committed", 502,
            (("502 own 30 2 5 0 3", "502 own 30 2 5 0 -1"),), frozenset({"poll-skip"})),
    Forgery("commit-regression", "who looks sees less than was committed", 503,
            (("503 look 18 0 0 0 3", "503 look 18 0 0 0 2"),)),
    Forgery("commit-beyond-end", "what is committed was not there yet", 503,
            (("503 end 19 0 0 0 5", "503 end 19 0 0 0 2"),)),
    Forgery("commit-beyond-end", "what is committed is never there", 502,
            (("502 ask 33 2 5 0 5", "502 ask 33 2 5 0 6"),
             ("502 done 34 2 5 0 5", "502 done 34 2 5 0 6"))),
    Forgery("poll-skip", "a member is not given a record", 501,
            (("501 work 12 1 4 0 1\n", ""),), frozenset({"unhandled-record"})),
    Forgery("nonmonotonic-poll", "a member is given a record twice", 501,
            (("501 work 15 1 4 0 2\n", "501 work 15 1 4 0 2\n501 work 15 1 4 0 1\n"),)),
)


def forge(text: str, directory: Path) -> None:
    """Writes the diaries into a directory, which it makes."""
    directory.mkdir(parents=True)
    lines = text.splitlines()
    for process in sorted({line.split()[0] for line in lines}):
        (directory / f"diary-{process}").write_text("".join(_of(process, lines)), encoding="ascii")


def _of(process: str, lines: list[str]) -> Iterator[str]:
    for line in lines:
        who, entry = line.split(maxsplit=1)
        if who == process:
            yield f"{entry}\n"

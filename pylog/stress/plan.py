"""The plan of a run: who works, and which fault comes when. All of it follows from a seed.

It is printed before anything happens and stands in the report, so that a run can be repeated as
far as the kernel's scheduling allows.
"""

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pylog.errors import ConfigurationError
from pylog.log import DURABILITIES

WORKLOADS = {
    "append": "processes and threads append by every way in; one reader follows",
    "fanout": "few writers, many readers that seek, follow, and hold views through delete_before",
    "durable": "many threads make small appends, each durable when it returns",
    "group": "members of a consumer group read, commit, die and are fenced; diaries are judged",
    "queue": "members of share groups put, take, settle, die and are stopped; diaries are judged",
    "request": "askers and servers request, reply, die and are stopped; diaries are judged",
}
NEMESES = {
    "kill": "SIGKILL to a writer, a reader, the janitor, or all writers at once",
    "kill-at": "C writers that die at each named point of the core (needs --driver)",
    "pause": "SIGSTOP to a process, and SIGCONT up to two seconds later",
    "flip": "one bit of a retired segment is another for a while; it must be told",
    "truncate": "a retired segment loses its end for a while; it must be told",
    "fork": "a writer forks; the child must be refused the log, open it anew, append, outlive",
    "limits": "few open files, or little memory, for a while",
    "disk-full": "the disk is full for a while (a small tmpfs where mounting works)",
}
OF_GROUPS = ("group", "queue", "request")
OF_MEMBERS = ("kill", "pause")    # the nemeses of these workloads
WAYS = ("append", "append_full", "append_many", "atomic", "if_end", "append_buffer", "flush")

# Where a workload's numbers are not those of Options.
OWN: dict[str, dict[str, Any]] = {
    "fanout": {"processes": 2, "threads": 1, "readers": 16, "disk_bytes": 128 << 20},
    "durable": {"threads": 8, "durability": "fsync", "size_max": 400,
                "ways": ("append", "append_full", "atomic", "if_end")},
    "group": {"processes": 5, "threads": 1},
    "queue": {"processes": 5, "threads": 1},
    "request": {"processes": 7, "threads": 2},    # four of them serve
}

# Seconds between two faults of a kind, on average; --rate multiplies.
PERIODS = {"kill": 0.2, "kill-at": 0.05, "pause": 1.5, "flip": 1.0, "truncate": 2.0, "fork": 1.0,
           "limits": 2.0, "disk-full": 4.0}
# The least and the most that an option may be, for the command and for a report that is replayed.
RANGES: dict[str, tuple[float, float]] = {
    "seconds": (0.1, 1e6), "quiet_seconds": (0.5, 600.0), "rate": (0.01, 1000.0),
    "seed": (0, 2**63), "processes": (1, 64), "threads": (1, 64), "readers": (1, 64),
    "size_max": (48, 1 << 24), "segment_bytes": (4096, 1 << 30),
    "disk_bytes": (16 << 20, 1 << 40),
}
FAULTS_MAX = 1_000_000    # all of them stand in the report
RUN_MAX, CHOICE_MAX = (1 << 62) - 1, (1 << 31) - 1
ROUNDING = 1e-3    # seconds
# A fault that lasts is over after so many seconds, at least and at most.
LENGTHS = {"pause": (0.05, 2.0), "flip": (0.1, 0.5), "truncate": (0.1, 0.3), "limits": (0.2, 1.5),
           "disk-full": (0.5, 2.0)}


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked to be. Sizes in bytes, times in seconds; rate multiplies all faults."""

    workload: str = "append"
    nemeses: tuple[str, ...] = ()
    seconds: float = 10.0
    quiet_seconds: float = 10.0
    seed: int = 0
    rate: float = 1.0
    durability: str = "os"
    compression: str | None = None
    processes: int = 4
    threads: int = 2
    readers: int = 1
    ways: tuple[str, ...] = WAYS
    size_max: int = 1 << 20
    segment_bytes: int = 16 << 20
    disk_bytes: int = 1 << 30

    @classmethod
    def for_workload(cls, workload: str, **wanted: Any) -> "Options":
        """The workload's own numbers, where none are wanted."""
        given = {name: value for name, value in wanted.items() if value is not None}
        options = cls(workload=workload, **OWN.get(workload, {}) | given)
        options.need_sense()
        return options

    def need_sense(self) -> None:
        """ConfigurationError for what cannot be run."""
        for name, (least, most) in RANGES.items():
            need_number(name, getattr(self, name), least, most)
        if self.durability not in DURABILITIES:
            raise ConfigurationError(f"there is no durability {self.durability!r}; use one of "
                                     f"{', '.join(DURABILITIES)}")
        if self.compression not in (None, "lz4"):
            raise ConfigurationError(
                f"a run compresses by lz4 or not at all, not by {self.compression!r}")
        if self.workload not in WORKLOADS:
            raise ConfigurationError(
                f"there is no workload {self.workload!r}; use one of {', '.join(WORKLOADS)}")
        if unknown := sorted({*self.nemeses} - {*NEMESES}):
            raise ConfigurationError(
                f"there is no nemesis {unknown[0]!r}; use some of {', '.join(NEMESES)}")
        if self.workload in OF_GROUPS and (others := sorted({*self.nemeses} - {*OF_MEMBERS})):
            raise ConfigurationError(f"the nemesis {others[0]!r} does nothing to the members of a "
                                     f"group; use some of {', '.join(OF_MEMBERS)}")
        if unknown := sorted({*self.ways} - {*WAYS}):
            raise ConfigurationError(
                f"there is no way in {unknown[0]!r}; use some of {', '.join(WAYS)}")
        if {*self.ways} <= {"flush"}:
            raise ConfigurationError("ways that append nothing leave nothing to check; name one "
                                     f"more of {', '.join(WAYS)}")
        expected = sum(self.seconds * self.rate / PERIODS[nemesis] for nemesis in self.nemeses)
        if expected > FAULTS_MAX:
            raise ConfigurationError(
                f"some {expected:,.0f} faults are more than a plan may have, {FAULTS_MAX:,}; use a "
                "lower --rate or fewer --seconds")
        if {"truncate", "disk-full"} <= {*self.nemeses}:
            raise ConfigurationError(
                "what truncate cuts off might find no room again with disk-full; use one of them")
        if self.segment_bytes < 2 * self.size_max:
            raise ConfigurationError(
                f"a segment of {self.segment_bytes} bytes is too small for records of "
                f"{self.size_max}; use twice as much at least")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when it begins (seconds into the run), how long it lasts, and the random number
    that chooses its target among those alive then."""

    at: float
    nemesis: str
    seconds: float
    choice: int

    def __str__(self) -> str:
        length = f" for {self.seconds:.2f} s" if self.seconds else ""
        return f"{self.at:9.3f} s  {self.nemesis}{length}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Options, the run's number, and its faults in the order of time."""

    options: Options
    run: int
    faults: tuple[Fault, ...] = field(repr=False)

    @classmethod
    def draw(cls, options: Options) -> "Plan":
        """The plan that follows from the options, their seed included."""
        rng = random.Random(options.seed)
        run = rng.getrandbits(62) | 1
        faults = [fault for nemesis in options.nemeses for fault in _faults(options, nemesis, rng)]
        return cls(options, run, tuple(sorted(faults, key=lambda fault: fault.at)))

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {"options": asdict(self.options), "run": self.run,
                "faults": [asdict(fault) for fault in self.faults]}

    @classmethod
    def from_dict(cls, data: Any) -> "Plan":
        """The plan of a report; ConfigurationError when it is none."""
        try:
            options = Options(**data["options"])
            options = replace(options, nemeses=tuple(options.nemeses), ways=tuple(options.ways))
            plan = cls(options, data["run"], tuple(Fault(**one) for one in data["faults"]))
            plan.need_sense()
        except ConfigurationError as error:
            raise ConfigurationError(f"the report's plan cannot be repeated: {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"the report holds no plan that can be repeated ({error!r}); use one that this "
                "version of `pylog stress` wrote") from None
        return plan

    def need_sense(self) -> None:
        """ConfigurationError for what `draw` makes of no options: somebody has edited it."""
        self.options.need_sense()
        need_number("run", self.run, 1, RUN_MAX)
        if len(self.faults) > FAULTS_MAX:
            raise ConfigurationError(f"{len(self.faults):,} faults are more than a plan may have, "
                                     f"{FAULTS_MAX:,}; leave some out")
        before = 0.0
        for number, fault in enumerate(self.faults):
            if fault.nemesis not in self.options.nemeses:
                raise ConfigurationError(
                    f"fault {number} is of {fault.nemesis!r}, which is none of the plan's nemeses, "
                    f"{', '.join(self.options.nemeses) or 'none'}; name it among them")
            # In the order of time, and over when the faults are.
            need_number(f"at of fault {number}", fault.at, before, float(self.options.seconds))
            need_number(f"seconds of fault {number}", fault.seconds, 0.0,
                        self.options.seconds - fault.at + ROUNDING)
            need_number(f"choice of fault {number}", fault.choice, 0, CHOICE_MAX)
            before = fault.at

    def lines(self, shown: int = 12) -> Iterator[str]:
        """The plan as text."""
        o = self.options
        cast = f"{o.processes} members" if o.workload in OF_GROUPS else (
            f"{o.processes} writing processes of {o.threads} threads, {o.readers} readers")
        yield (f"workload {o.workload}: {cast}; durability {o.durability}, "
               f"compression {o.compression}; seed {o.seed}")
        yield (f"{o.seconds:g} s with {len(self.faults)} faults "
               f"({', '.join(o.nemeses) or 'none'}), then at most {o.quiet_seconds:g} s of quiet")
        yield from map(str, self.faults[:shown])
        if more := len(self.faults[shown:]):
            yield f"            ... and {more} more"


def need_number(name: str, value: Any, least: float, most: float) -> None:
    """ConfigurationError for what is no number of the range; a whole one, where its ends are."""
    kinds = (int,) if isinstance(most, int) else (int, float)
    if type(value) not in kinds or not least <= value <= most:
        raise ConfigurationError(f"{name} is {value!r}; use a {'whole ' * (len(kinds) == 1)}number "
                                 f"from {least:g} to {most:g}")


def _faults(options: Options, nemesis: str, rng: random.Random) -> Iterator[Fault]:
    """Faults of one kind, at exponential distances; one that lasts is over before the next."""
    shortest, longest = LENGTHS.get(nemesis, (0.0, 0.0))
    at = min(0.5, options.seconds / 10)
    while (at := at + rng.expovariate(options.rate / PERIODS[nemesis])) < options.seconds:
        length = min(rng.uniform(shortest, longest), options.seconds - at)
        yield Fault(round(at, 4), nemesis, round(length, 4), rng.getrandbits(31))
        at += length

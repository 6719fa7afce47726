"""The catalogue: every way in which a log can be wrong, by name, and when it may be.

An anomaly that the run's own fault explains is counted and reported, and does not fail the run;
what the environment did makes the run inconclusive.
Rows of transactions join with these; the order is that of reports, worst first.

Sources: Jepsen's Kafka workload and Redpanda's kgo-verifier, whose catalogues these rows follow.
"""

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """What an anomaly means in a run with a given setting."""

    NEVER = "never allowed"
    INCONCLUSIVE = "not of the log: it cannot be told"
    COUNTED = "allowed by this setting, counted"
    DOCUMENTED = "allowed, documented"


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One row: its name, what it is, who sees it, and what makes it legal.

    `excused_by`: kinds of events (see plan.py, and "full-disk" for a disk that no fault of the run
    had filled) after which it may be seen at the offsets, or in the process, that the event names.
    `otherwise`: what it means where nothing excuses it.
    """

    name: str
    meaning: str
    seen_by: str = "checker"
    excused_by: tuple[str, ...] = ()
    otherwise: Severity = Severity.NEVER

    @property
    def is_documented(self) -> bool:
        """Whether every good log may show it."""
        return self.otherwise is Severity.DOCUMENTED

    def severity(self, excuse: str | None = None) -> Severity:
        """What one sighting of it means; `excuse`: the kind of event that explains it, if any."""
        return Severity.COUNTED if excuse in self.excused_by else self.otherwise


DAMAGE = ("flip", "truncate")

ROWS = (
    Anomaly("hole", "acknowledged, missing, and later records of the producer are there",
            "ledger"),
    Anomaly("lost-write", "acknowledged, missing at the producer's end, and nothing was cut",
            "ledger"),
    Anomaly("truncated-tail", "acknowledged, missing at the producer's end behind a cut",
            "ledger"),
    Anomaly("invented-write", "there, and its producer never sent it", "ledger"),
    Anomaly("failed-write", "there, though its call raised and promised that it is not", "ledger"),
    Anomaly("misplaced-write", "the offset that append returned bears another record", "writer"),
    Anomaly("corrupt-record", "the batch's CRC is right and the record's own is not",
            excused_by=DAMAGE),
    Anomaly("torn-batch", "a batch whose header, CRC or structure is wrong",
            excused_by=DAMAGE),
    Anomaly("foreign-record", "a record that no producer of the run made", excused_by=DAMAGE),
    Anomaly("other-run", "a record of another run: bytes that came back"),
    Anomaly("zombie-write", "a record of an incarnation that a later one had followed"),
    Anomaly("duplicate", "one record at two offsets"),
    Anomaly("reordered", "a later record of the producer stands before it"),
    Anomaly("offset-gap", "offsets jump, and no new epoch explains it",
            excused_by=DAMAGE),
    Anomaly("offset-backwards", "an offset comes again, or too late"),
    Anomaly("stale-epoch", "a batch's epoch is below that of one before it"),
    Anomaly("inconsistent-offset", "two looks at an offset saw different records"),
    Anomaly("damaged-structure", "check() found something in the files", "check",
            excused_by=DAMAGE),
    Anomaly("untold-damage", "a byte was changed, and neither a reader nor check() said so",
            "check"),
    Anomaly("lying-index", "the record found by an offset is another one", "prober"),
    Anomaly("lying-time-index", "a search by time passes over a record of that time", "prober"),
    Anomaly("poll-skip", "a reader jumped over records that are there", "reader",
            excused_by=DAMAGE),
    Anomaly("nonmonotonic-poll", "a reader went back without a seek", "reader"),
    Anomaly("changed-view", "the bytes of a view changed while it was held", "reader",
            excused_by=DAMAGE),
    Anomaly("visible-before-durable", "with fsync: read before it was durable", "reader"),
    Anomaly("retention-early", "a record at or above the log start was refused", "reader"),
    Anomaly("unhandled-record", "it is there, and was given to no member of the group", "judge"),
    Anomaly("double-owner", "two members had a partition, in one generation or at one time",
            "judge"),
    Anomaly("zombie-commit", "accepted from a member after another had got the partition",
            "judge"),
    Anomaly("commit-regression", "less is committed than was", "judge"),
    Anomaly("commit-beyond-end", "more is committed than is there", "judge"),
    Anomaly("lost-message", "the queue says that all is done, and nobody has acknowledged it",
            "judge"),
    Anomaly("delivered-after-ack", "a message came to a worker after it was acknowledged",
            "judge"),
    Anomaly("two-holders", "a message was given away while a worker had it, within its lock",
            "judge"),
    Anomaly("zombie-ack", "accepted from a worker after another had got the message", "judge"),
    Anomaly("out-of-key-order", "a message came before an earlier one of its key was done",
            "judge"),
    Anomaly("delivered-early", "a message was delivered before its delay was over", "judge"),
    Anomaly("delivered-expired", "a message was delivered after its time to live", "judge"),
    Anomaly("duplicate-put", "a second message is in the queue, with a dedup key that was there",
            "judge"),
    Anomaly("foreign-reply", "an asker was given what is no reply to its request", "judge"),
    Anomaly("invented-reply", "a reply that no server gave", "judge"),
    Anomaly("second-reply", "an asker that had a reply was given another", "judge"),
    Anomaly("late-reply", "a reply was given to an asker that had its time-out already", "judge"),
    Anomaly("lost-reply", "a server answered in time, and the asker that waits heard nothing",
            "judge"),
    Anomaly("lost-request", "accepted and waited for, and it went by all servers", "judge"),
    Anomaly("served-again", "a request was served twice, and its server was not killed at it",
            "judge"),
    Anomaly("stuck-request", "servers are at work, and a request was not begun for two seconds",
            "judge"),
    Anomaly("served-expired", "a request was begun a second after its asker had given up", "judge"),
    Anomaly("stuck-asker", "a second after its time-out an asker had not heard of it", "judge"),
    Anomaly("early-time-out", "an asker was told that its time is over, and it was not", "judge"),
    Anomaly("miscounted-reply", "stats() counts other replies than an asker got", "judge"),
    Anomaly("stuck-reader", "records are there, and a reader did not get on", "reader"),
    Anomaly("unseen", "acknowledged, and not read by anyone when the run ended", "stage"),
    Anomaly("late-wake-up", "a waiter slept past the record it waited for", "reader"),
    Anomaly("unwritable-log", "after the faults: appends fail, and the log does not say why",
            "stage", excused_by=("full-disk",)),
    Anomaly("broken-worker", "a process ended by an error or a signal that nobody sent", "stage",
            excused_by=("truncate", "limits", "full-disk")),
    Anomaly("unexpected-error", "a call raised what no fault of the run explains", "writer",
            excused_by=("full-disk",)),
    Anomaly("fork-accepted", "a log opened before a fork was of use after it", "writer"),
    Anomaly("full-disk",
            "the disk is full, or no file may grow, by no fault of the run; free some space",
            "writer", excused_by=("disk-full",), otherwise=Severity.INCONCLUSIVE),
    Anomaly("lost-sighting", "what a process saw go wrong could not be written down", "stage",
            otherwise=Severity.INCONCLUSIVE),
    Anomaly("indeterminate-write", "its call raised or its writer was killed: there or not",
            "ledger", otherwise=Severity.DOCUMENTED),
    Anomaly("refused-call", "a call raised, and a fault of the run explains it", "writer",
            otherwise=Severity.DOCUMENTED),
    Anomaly("cut", "offsets were skipped at a new epoch, as after every recovery with a loss",
            otherwise=Severity.DOCUMENTED),
)

ANOMALIES = {row.name: row for row in ROWS}
RANK = {row.name: place for place, row in enumerate(ROWS)}

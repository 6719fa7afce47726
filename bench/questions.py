"""All questions and probes, in the order of the table. Probes that write gigabytes come last."""

from bench import (
    appending,
    auditing,
    consuming,
    dispatching,
    durable,
    fetching,
    opening,
    orchestrating,
    processes,
    producing,
    projecting,
    queueing,
    requesting,
    sourcing,
    takeover,
)

QUESTIONS = (
    *appending.QUESTIONS,
    *producing.QUESTIONS,
    *fetching.QUESTIONS,
    *consuming.QUESTIONS,
    *processes.QUESTIONS,
    *queueing.QUESTIONS,
    *projecting.QUESTIONS,
    *auditing.QUESTIONS,
    *durable.QUESTIONS,
)
PROBES = (
    *processes.PROBES,
    *requesting.PROBES,
    *queueing.PROBES,
    *dispatching.PROBES,
    *sourcing.PROBES,
    *orchestrating.PROBES,
    *consuming.PROBES,
    *takeover.PROBES,
    *appending.PROBES,
    *opening.PROBES,
)

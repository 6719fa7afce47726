"""All questions and probes, in the order of the table. Probes that write gigabytes come last."""

from bench import (
    appending,
    consuming,
    durable,
    fetching,
    opening,
    processes,
    producing,
    requesting,
    takeover,
)

QUESTIONS = (
    *appending.QUESTIONS,
    *producing.QUESTIONS,
    *fetching.QUESTIONS,
    *consuming.QUESTIONS,
    *processes.QUESTIONS,
    *durable.QUESTIONS,
)
PROBES = (*processes.PROBES, *requesting.PROBES, *consuming.PROBES, *takeover.PROBES,
          *appending.PROBES, *opening.PROBES)

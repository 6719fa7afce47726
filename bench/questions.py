"""All questions and probes, in the order of the table. Probes that write gigabytes come last."""

from bench import appending, durable, fetching, opening, processes, producing, takeover

QUESTIONS = (
    *appending.QUESTIONS,
    *producing.QUESTIONS,
    *fetching.QUESTIONS,
    *processes.QUESTIONS,
    *durable.QUESTIONS,
)
PROBES = (*processes.PROBES, *takeover.PROBES, *appending.PROBES, *opening.PROBES)

"""Asking one question, in this process or in one of its own."""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from bench.harness import Figure, Probe, Question, ask
from bench.workspace import FULL, Sizes, Workspace, warm_memory


def chosen(names: list[str]) -> list[Question | Probe]:
    from bench.questions import PROBES, QUESTIONS

    everything = [*QUESTIONS, *PROBES]
    if not names:
        return everything
    found = [one for one in everything if any(name in one.name for name in names)]
    if not found:
        sys.exit(f"no question is called {', '.join(names)}; python -m bench --list names all")
    return found


def measure(one: Question | Probe, sizes: Sizes, rounds: int) -> list[Figure]:
    with Workspace(sizes) as workspace:
        if isinstance(one, Probe):
            return one.measure(workspace, rounds)
        return ask(one, workspace, rounds)


def measure_apart(name: str, rounds: int) -> list[Figure]:
    """One question in a process of its own: the heap that another question leaves behind costs up
    to a quarter more where objects are made."""
    os.sync()    # nor is what it wrote to be written back meanwhile
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(measure_named, name, rounds).result()


def measure_named(name: str, rounds: int) -> list[Figure]:
    """In that process."""
    warm_memory(FULL.warm_bytes)
    return measure(*(one for one in chosen([name]) if one.name == name), FULL, rounds)

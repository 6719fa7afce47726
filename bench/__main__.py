"""`python -m bench [name ...] [--smoke] [--rounds N] [--json FILE] [--groups | --no-groups]`.

Exit status: 0, however slow; 1 when a case found wrong data or failed.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from bench.asking import chosen, measure, measure_apart
from bench.harness import Figure
from bench.workspace import FULL, SCRATCH, SMOKE


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="What the log costs, as ratios to yardsticks.")
    parser.add_argument("names", nargs="*", help="questions whose name contains one of these")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (21; smoke 2)")
    parser.add_argument("--json", type=Path, help="write the machine and all rows there")
    parser.add_argument("--groups", action=argparse.BooleanOptionalAction, default=None,
                        help="also run the pytest-benchmark groups (default: with no name)")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (2 if options.smoke else 21)
    if options.groups is None:
        options.groups = not options.names and not options.smoke
    return options


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}" if value >= 100 else f"{value:.3g}"


def bound(figure: Figure, value: float | None) -> str:
    return "" if value is None else f"{'>=' if figure.is_speed else '<='} {value:g}"


def row(figure: Figure) -> str:
    measured = f"{number(figure.best)} {figure.unit}"
    return (f"{figure.name:<58} {measured:>10} {number(figure.median):>7} "
            f"{bound(figure, figure.gate):>8} {bound(figure, figure.ambition):>8}  "
            f"{figure.verdict:<17} {figure.detail}")


HEADER = (f"{'question':<58} {'best':>10} {'median':>7} {'gate':>8} {'ambition':>8}  "
          f"{'verdict':<17} time of the best")


def run_groups(names: list[str], smoke: bool, rounds: int) -> int:
    import pytest

    os.environ["BENCH_SMOKE"] = "1" if smoke else "0"
    os.environ["BENCH_ROUNDS"] = str(rounds)
    return int(pytest.main([
        str(Path(__file__).with_name("bench_groups.py")), "-q", "-p", "no:cacheprovider",
        "--benchmark-columns=min,median,rounds", "--benchmark-sort=min",
        "--benchmark-group-by=group", *(["-k", " or ".join(names)] if names else []),
    ]))


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    asked = chosen(options.names)
    if options.list:
        for one in asked:
            print(f"{one.name:<16} {one.title}")
        return 0
    from bench.machine import describe, line

    sizes = SMOKE if options.smoke else FULL
    SCRATCH.mkdir(parents=True, exist_ok=True)
    machine = describe(SCRATCH)
    print(line(machine))
    print(f"best and median of {options.rounds} interleaved rounds"
          f"{'; smoke sizes: the figures mean nothing' if options.smoke else ''}\n\n{HEADER}")
    figures: list[Figure] = []
    for one in asked:
        found = (measure(one, sizes, options.rounds) if options.smoke
                 else measure_apart(one.name, options.rounds))
        figures += found
        print("\n".join(map(row, found)), flush=True)
    if options.json:
        rows = [vars(figure) | {"verdict": figure.verdict} for figure in figures]
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    if options.groups:
        print()
        return run_groups(options.names, options.smoke, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())

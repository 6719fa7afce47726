"""The bench: what the log costs, as ratios to yardsticks measured in the same run.

`python -m bench` prints a line about the machine and the table of docs/performance.md, then runs
the same cases with their peers under pytest-benchmark, a group per question. Names choose
questions, `--smoke` takes tiny sizes.

    __main__      the command line
    harness       rounds, ratios, verdicts: Case, Question, Target, Figure
    workspace     sizes, scratch logs, warm memory, the machine line
    yardsticks    _yardstick.pyx: the same work in C, without a log
    questions     all of them, each from the file of its noun: appending, fetching, queueing, ...
    peers         sqlite3, lmdb, rocksdict and a plain file doing the same
    bench_groups  the pytest-benchmark side
"""

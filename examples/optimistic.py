"""A bank account that never goes below zero, though four threads draw from it at once.

Each decides on what it has read, and appends only if the log still ends there (`if_end`). Who was
too late reads what happened meanwhile and decides again: optimistic concurrency, no lock held.

    python examples/optimistic.py
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor

import pylog


def draw(log: pylog.Log, amount: int) -> bool:
    """Takes `amount` from the account, or finds that it is not there."""
    while True:
        end = log.end_offset
        balance = sum(int(record.value) for record in log.read(stop=end))
        if balance < amount:
            return False
        try:
            log.append(str(-amount).encode(), if_end=end)
        except pylog.WrongEndOffsetError:
            continue    # somebody was faster
        return True


def main() -> None:
    with tempfile.TemporaryDirectory(dir=".") as folder, pylog.Log(f"{folder}/account") as log:
        log.append(b"100")
        with ThreadPoolExecutor(4) as pool:
            drawn = sum(pool.map(lambda _: draw(log, 7), range(40)))
        balance = sum(int(record.value) for record in log.read())
        print(f"{drawn} of 40 draws of 7 went through; {balance} are left of 100")
        assert (drawn, balance) == (14, 2)


if __name__ == "__main__":
    main()

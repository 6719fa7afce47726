"""One process appends, another follows: no server between them, only a directory.

    python examples/two_processes.py
"""

import multiprocessing
import tempfile

import pylog


def follow(path: str, count: int) -> None:
    """Prints the first `count` records as they come; sleeps while there are none."""
    with pylog.Log(path, mode="r") as log:
        for record in log.read(follow=True):
            print(f"offset {record.offset}: {record.key.decode()} says {record.value.decode()}")
            if record.offset == count - 1:
                return


def main() -> None:
    with tempfile.TemporaryDirectory(dir=".") as folder, pylog.Log(f"{folder}/talk") as log:
        process = multiprocessing.get_context("spawn").Process(
            target=follow, args=(str(log.path), 3))
        process.start()
        for word in (b"one", b"two", b"three"):
            log.append(word, key=b"parent")
        process.join()


if __name__ == "__main__":
    main()

"""Commits small transactions at a steady pace, with the real ZODB.

With a blob directory, each of them creates a blob. At the end it prints a line for each: when it became visible in the file and when tpc_finish had
returned (both in nanoseconds since 1970), and the position after it.
"""

import importlib
import os
import sys
import time

from store import Store

OBJECTS_MAX = 3
SIZES = (200, 2000)
BLOB_SIZES = (1000, 16000)


class Finish:
    """Replaces the fsync that ZODB calls once the status is in the file."""

    def __init__(self) -> None:
        self.began = 0

    def __call__(self, descriptor: int) -> None:
        self.began = time.time_ns()
        os.fsync(descriptor)


def main() -> None:
    path, count, pace = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    blobs = sys.argv[4] if len(sys.argv) > 4 else None
    finish = Finish()
    importlib.import_module("ZODB.FileStorage.FileStorage").fsync = finish
    store = Store(path, seed=os.getpid(), blobs=blobs)
    commits = []
    start = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, start + number * pace - time.monotonic()))
        store.commit(
            objects=store.random.randint(1, OBJECTS_MAX),
            size=store.random.randint(*SIZES),
            blobs=0 if blobs is None else 1,
            blob_size=store.random.randint(*BLOB_SIZES),
        )
        commits.append((finish.began, time.time_ns(), store.position))
    store.close()
    for commit in commits:
        print(*commit)


if __name__ == "__main__":
    main()

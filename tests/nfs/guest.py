"""Executes the commands of the tests in the virtual machine; see `Guest`.

Reads one JSON command per line, and answers with one JSON object per line, like `agent.py`.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "zodb"))

from ZODB.utils import p64, u64

import agent
from operations import Operations
from store import Store

Answer = dict[str, Any]
# The clock of the coarse file system ticks once a second.
TRIES = 20
# A blob, or a directory on the way to it, that the client has not found.
MISSED = re.compile(r'openat2\([0-9]+, "0x[0-9a-f]+(\.blob)?",.*ENOENT')


class Guest(agent.Agent):
    """ZODB on the server's disk, and programs. The methods are the commands."""

    def __init__(self) -> None:
        super().__init__()
        self._programs: dict[str, Program] = {}
        self._writer: FastWriter | None = None

    def reset(self) -> Answer:
        """Ends everything that was started."""
        self.stop_writing()
        for program in self._programs.values():
            program.process.kill()
        self._programs.clear()
        for name in list(self._stores):
            self.abandon(name)
        return {}

    def run(self, arguments: list[str], seconds: float = 60) -> Answer:
        """Runs a program to its end."""
        program = Program(arguments)
        program.wait(seconds)
        return program.describe()

    def start(self, program: str, arguments: list[str]) -> Answer:
        """Starts a program in the background, under this name."""
        self._programs[program] = Program(arguments)
        return {}

    def look(self, program: str) -> Answer:
        return self._programs[program].describe()

    def wait(self, program: str, seconds: float = 60) -> Answer:
        self._programs[program].wait(seconds)
        return self.look(program)

    def signal(self, program: str, name: str) -> Answer:
        self._programs[program].process.send_signal(signal.Signals[name])
        return {}

    def write_fast(self, name: str, pack_at: int) -> Answer:
        """Makes ZODB write at random, as fast as it can, until `stop_writing`.

        Once, after `pack_at` operations, it packs to the state before them.
        """
        self._writer = FastWriter(self._stores[name], pack_at)
        return {}

    def stop_writing(self) -> Answer:
        """Stops the writes, and returns the number of each operation."""
        if self._writer is None:
            return {"operations": {}}
        writer, self._writer = self._writer, None
        return {"operations": writer.end()}

    def running(self, name: str) -> Answer:
        """The ids of all processes with this program name, including dead ones that cannot be
        removed."""
        for program in self._programs.values():
            program.process.poll()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if (entry / "comm").read_text().strip() == name:
                    found.append(int(entry.name))
            except OSError:
                pass
        return {"running": found}

    def await_path(self, path: str, seconds: float = 60) -> Answer:
        """Waits until a path exists."""
        wait_until(lambda: os.path.exists(path), path, seconds)
        return {}

    def miss_next_blob(self, name: str, mounted: str) -> Answer:
        """Lets the client look for the directory of the next blob, and so remember that it is
        missing. `mounted` is the blob directory on the client."""
        storage = self._stores[name].storage
        oid = p64(u64(storage.new_oid()) + 1)
        helper = storage.fshelper
        directory = os.path.relpath(helper.getPathForOID(oid), helper.base_dir)
        if os.path.exists(Path(mounted, directory)):
            raise ValueError(f"{directory} exists")
        return {}

    def move_after_miss(self, path: str, to: str, trace: str) -> Answer:
        """Moves a file once a program has not found a blob and waits to look again, according
        to the output of strace."""

        def waits() -> bool:
            calls = Path(trace).read_text() if os.path.exists(trace) else ""
            missed = MISSED.search(calls)
            return bool(missed) and "clock_nanosleep(" in calls[missed.end() :]

        wait_until(waits, f"missed blob in {trace}")
        os.rename(path, to)
        return {}

    def compare(self, master: str, slave: str) -> Answer:
        """The lengths of two files, and of their common prefix."""
        one, other = Path(master).read_bytes(), Path(slave).read_bytes()
        return {"master": len(one), "slave": len(other), "same": shared(one, other)}

    def listing(self, directory: str) -> Answer:
        """Everything that changes in a directory if something is written there."""
        found = {".": os.stat(directory)}
        for name in os.listdir(directory):
            found[name] = os.stat(Path(directory, name))
        return {
            "listing": {
                name: [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
                for name, stat in sorted(found.items())
            }
        }

    def flip_within_a_tick(self, path: str, mounted: str) -> Answer:
        """Turns the last transaction into a voted one, lets the client read it, and finishes it,
        all within one tick of the server's clock.

        `shown` is the status that the client reads when it opens the file again.
        """
        with open(path, "rb") as file:
            at = [at for at, _ in agent.probe.headers(file)][-1] + 16
        own = os.open(path, os.O_RDWR)
        try:
            for _ in range(TRIES):
                os.pwrite(own, b"c", at)
                voted = os.fstat(own).st_ctime_ns
                seen = read_one(mounted, at)
                os.pwrite(own, b" ", at)
                if seen == "c" and os.fstat(own).st_ctime_ns == voted:
                    return {"shown": read_one(mounted, at)}
        finally:
            os.close(own)
        raise TimeoutError("no change within a tick")


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"no {what}")
        time.sleep(0.001)


def read_one(path: str, at: int) -> str:
    """One byte of a file that is opened for it."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.pread(file, 1, at).decode()
    finally:
        os.close(file)


def shared(one: bytes, other: bytes) -> int:
    """The length of the common prefix."""
    low, high = 0, min(len(one), len(other))
    views = memoryview(one), memoryview(other)
    while low < high:
        middle = (low + high + 1) // 2
        if views[0][low:middle] == views[1][low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class FastWriter:
    """A thread that writes to a store until `end`."""

    def __init__(self, store: Store, pack_at: int) -> None:
        self._store = store
        self._pack_at = pack_at
        self._operations = Operations(store, pack=False)
        self._done: Counter[str] = Counter()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._is_over.is_set():
            if self._done.total() == self._pack_at:
                self._store.pack(keep=self._pack_at + 1)
                self._done["pack"] += 1
            self._done[self._operations.step()] += 1

    def end(self) -> dict[str, int]:
        self._is_over.set()
        self._thread.join()
        return dict(self._done)


class Program:
    """A program that is running or has ended."""

    def __init__(self, arguments: list[str]) -> None:
        self._output, self._errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._errors,
        )

    def wait(self, seconds: float) -> None:
        self.process.wait(seconds)

    def describe(self) -> Answer:
        """The program's state; `code` is None while it is running."""
        return {
            "code": self.process.poll(),
            "stdout": text_of(self._output),
            "stderr": text_of(self._errors),
        }


def text_of(file: Any) -> str:
    length = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), length, 0).decode("utf-8", "replace")


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr
    agent.serve(sys.stdin, answers, Guest())

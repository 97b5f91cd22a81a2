"""What the virtual machine is told to do: see `Guest`.

Reads one JSON command a line, answers one JSON object a line, as `agent.py` does.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "zodb"))

import agent

Answer = dict[str, Any]
TRIES = 1000


class Guest(agent.Agent):
    """ZODB on the server's disk, and programs; the commands are the methods."""

    def __init__(self) -> None:
        super().__init__()
        self._programs: dict[str, Program] = {}

    def run(self, arguments: list[str], seconds: float = 60) -> Answer:
        """Runs a program to its end."""
        program = Program(arguments)
        program.wait(seconds)
        return program.describe()

    def start(self, program: str, arguments: list[str]) -> Answer:
        """Starts a program that goes on in the background, under this name."""
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

    def running(self, name: str) -> Answer:
        """The process ids of all that run a program of this name, the dead that
        cannot go among them."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if (entry / "comm").read_text().strip() == name:
                    found.append(int(entry.name))
            except OSError:
                pass
        return {"running": found}

    def compare(self, master: str, slave: str) -> Answer:
        """The lengths of two files, and of the start that they share."""
        one, other = Path(master).read_bytes(), Path(slave).read_bytes()
        same = len(os.path.commonprefix([one, other]))
        return {"master": len(one), "slave": len(other), "same": same}

    def listing(self, directory: str) -> Answer:
        """All that may change in a directory when something is written there."""
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
        """Makes the last transaction a voted one, has the client read that,
        and finishes it: all at a time that is the same for the server's clock.

        `shown` is the status that the client then reads by opening the file.
        """
        with open(path, "rb") as file:
            at = [at for at, _ in agent.probe.headers(file)][-1] + 16
        own = os.open(path, os.O_RDWR)
        theirs = os.open(mounted, os.O_RDONLY)
        try:
            for _ in range(TRIES):
                os.pwrite(own, b"c", at)
                voted = os.fstat(own).st_ctime_ns
                show_now(theirs)
                seen = os.pread(theirs, 1, at)
                os.pwrite(own, b" ", at)
                if os.fstat(own).st_ctime_ns == voted and seen == b"c":
                    break
            else:
                raise TimeoutError("no flip within a tick")
        finally:
            os.close(own)
            os.close(theirs)
        with open(mounted, "rb", buffering=0) as file:
            return {"shown": os.pread(file.fileno(), 1, at).decode()}


def show_now(descriptor: int) -> None:
    """Has the next read ask the server."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


class Program:
    """A program that runs, or has ended."""

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
        """`code` is None while it runs."""
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

"""Executes commands of the tests with the real ZODB.

`agent.py fork` forks an agent for each connection to a socket, so that the modules of ZODB are
loaded only once. An agent reads one JSON command per line, and answers with one JSON object per
line; see `Agent` for the commands. Each answer contains the warnings that ZODB logged.
Without arguments, it is one agent on its standard input and output.
`agent.py write PATH` writes to a storage for some time.
"""

import argparse
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections import Counter
from typing import Any, Mapping, TextIO

from ZODB import fsrecover

import blobs
import diary
import probe
import recognition
import references
import set_aside
import store
from operations import Operations
from store import Store

Answer = dict[str, Any]


class Agent:
    """The commands: the methods of this class without a leading underscore.

    The parameters of a method are the keys of its command, besides `cmd`. `quit` closes
    all storages and sets `done`.
    """

    def __init__(self) -> None:
        self.done = False
        self._stores: dict[str, Store] = {}

    def open(self, name: str, path: str, **options: Any) -> Answer:
        if name in self._stores:
            raise ValueError(f"{name!r} is open already")
        opened = Store(path, **options)
        self._stores[name] = opened
        return probe.describe(opened.storage)

    def close(self, name: str) -> Answer:
        self._stores.pop(name).close()
        return {}

    def abandon(self, name: str) -> Answer:
        self._stores.pop(name).abandon()
        return {}

    def commit(self, name: str, **what: Any) -> Answer:
        self._stores[name].commit(**what)
        return self._where(name)

    def vote(self, name: str, **what: Any) -> Answer:
        self._stores[name].vote(**what)
        return {}

    def finish(self, name: str) -> Answer:
        self._stores[name].finish()
        return self._where(name)

    def abort(self, name: str) -> Answer:
        self._stores[name].abort()
        return {}

    def drop(self, name: str, **what: Any) -> Answer:
        self._stores[name].drop(**what)
        return {}

    def undo(self, name: str, tid: str | None = None, count: int = 1) -> Answer:
        self._stores[name].undo(tid, count)
        return self._where(name)

    def pack(self, name: str, keep: int = 0) -> Answer:
        packed = self._stores[name].pack(keep)
        return {"position": self._stores[name].position, "packed": packed}

    def random(self, name: str, count: int, pack: bool = False) -> Answer:
        operations = Operations(self._stores[name], pack)
        counts = Counter(operations.step() for _ in range(count))
        return {**self._where(name), "operations": dict(counts)}

    def recover(
        self, path: str, to: str, partial: bool = False, packed: bool = False
    ) -> Answer:
        """Repairs a damaged file, like `fsrecover [-p] [-P 0]`."""
        fsrecover.recover(
            path, to, partial=partial, pack=time.time() if packed else None
        )
        return {}

    def copy_without(self, path: str, to: str, tids: list[str]) -> Answer:
        """Copies a file without these transactions, as a faulty conversion might."""
        store.copy_without(path, to, {bytes.fromhex(tid) for tid in tids})
        return {}

    def transactions(self, path: str) -> Answer:
        return {"transactions": probe.transactions(path)}

    def check(self, path: str, magic: str = "any") -> Answer:
        return probe.scan(path, magic)

    def check_open(self, path: str) -> Answer:
        return probe.open_copy(path)

    def save_index(self, path: str, to: str) -> Answer:
        return probe.save_index(path, to)

    def save_index_of(
        self, objects: list[list[int]], position: int, to: str
    ) -> Answer:
        return probe.save_index_of(objects, position, to)

    def open_db_load_all(self, path: str) -> Answer:
        return probe.load_all(path)

    def read_all(self, path: str) -> Answer:
        return probe.read_all(path)

    def compare_set_aside(
        self, path: str, old: str, start: int, base: str | None = None
    ) -> Answer:
        return set_aside.compare(path, old, start, base)

    def compare_index(self, path: str) -> Answer:
        return probe.compare_index(path)

    def serials(self, path: str) -> Answer:
        return {"serials": diary.serials(path)}

    def check_blobs(self, path: str, **options: Any) -> Answer:
        return blobs.check(path, **options)

    def check_references(self, **files: str) -> Answer:
        return references.check(**files)

    def blob_files(self, blob_directory: str) -> Answer:
        """The path of each blob file, by `oid tid`."""
        files = blobs.files(blob_directory)
        return {"files": {" ".join(key): path for key, path in files.items()}}

    def recognize_blobs(self, records: list[list[int]]) -> Answer:
        """Describes the start of each data record."""
        recognition.limit_memory()
        return {"answers": [recognition.describe(bytes(it)) for it in records]}

    def sleep(self, seconds: float) -> Answer:
        time.sleep(seconds)
        return {}

    def quit(self) -> Answer:
        for name in list(self._stores):
            self.close(name)
        self.done = True
        return {}

    def _where(self, name: str) -> Answer:
        opened = self._stores[name]
        return {"tid": opened.tid, "position": opened.position}


def run_command(agent: Agent, command: Mapping[str, Any]) -> Answer:
    arguments = dict(command)
    name = arguments.pop("cmd")
    method = None if name.startswith("_") else getattr(agent, name, None)
    if not callable(method):
        raise ValueError(f"unknown command {name!r}")
    return method(**arguments)


def answer_line(agent: Agent, line: str) -> Answer:
    """The answer to one line. An exception becomes an answer, too."""
    with probe.collected_warnings() as warnings:
        try:
            answer = {"ok": True, **run_command(agent, json.loads(line))}
        except Exception as error:
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    return {**answer, "warnings": warnings}


def serve(commands: TextIO, answers: TextIO, agent: Agent) -> None:
    """Answers commands until `quit` or the end of the input."""
    for line in commands:
        print(json.dumps(answer_line(agent, line)), file=answers, flush=True)
        if agent.done:
            return
    agent.quit()


def fork_agents() -> None:
    """Forks an agent for each connection, until the end of the standard input.

    Prints the name of the abstract socket. An agent first sends its process ID.
    """
    # The kernel chooses a name, and removes processes that have ended.
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print(listener.getsockname()[1:].decode(), flush=True)
    sys.stdout = sys.stderr
    gc.freeze()
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            with connection, connection.makefile("rw") as stream:
                print(os.getpid(), file=stream, flush=True)
                serve(stream, stream, Agent())
            return
        connection.close()


def write(options: argparse.Namespace) -> None:
    """Prints `tid position` for each acknowledged transaction, at once."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    written = Store(
        options.path,
        seed=options.seed,
        blobs=options.blobs,
        setup=options.setup,
        journal=options.journal,
    )
    operations = Operations(written, options.pack)
    end = time.monotonic() + options.seconds
    while not stop.is_set() and time.monotonic() < end:
        before = written.tid
        operation = operations.step()
        if written.tid != before:
            print(written.tid, written.position, flush=True)
        elif operation == "pack":
            print("packed", written.position, flush=True)
        if options.rate:
            stop.wait(1 / options.rate)
    written.close()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb")
    verbs.add_parser("fork", help="fork an agent for each connection")
    writer = verbs.add_parser("write", help="write to a storage for some time")
    writer.add_argument("path")
    writer.add_argument("--seed", type=int, required=True)
    writer.add_argument("--seconds", type=float, required=True)
    writer.add_argument("--pack", action="store_true", help="pack occasionally")
    writer.add_argument("--rate", type=float, help="maximum operations per second")
    writer.add_argument("--blobs", help="the blob directory, which exists")
    writer.add_argument("--setup", default="fs", choices=("fs", "proxy"))
    writer.add_argument("--journal", help="a file for the digests of blobs")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    if options.verb == "write":
        write(options)
    elif options.verb == "fork":
        fork_agents()
    else:
        answers, sys.stdout = sys.stdout, sys.stderr
        serve(sys.stdin, answers, Agent())


if __name__ == "__main__":
    main()

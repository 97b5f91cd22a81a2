"""A client of ZEO in a simulated site: an author who writes into a diary.

It gets the ports of all servers, and performs operations at a certain rate on whichever server
is running: entries, some of them large; the undo of an entry; a transaction that is voted and
then aborted. It prints one JSON object per line, first the attempt and then its result, if
there was one:

    {"tries": "enter" | "undo" | "abort", "serial": SERIAL}
    {"acknowledged": TID, "time": SECONDS SINCE 1970}
    {"aborted": true}
    {"failed": ERROR}
    {"refused": MESSAGE}

Serial numbers are never used twice, not even after a restart. A failed transaction may have
been committed nevertheless. An aborted one is never committed.
"""

import argparse
import itertools
import logging
import random
import time
from base64 import encodebytes
from typing import Callable, Iterator

import ZODB
from persistent.mapping import PersistentMapping
from transaction import TransactionManager
from ZEO.ClientStorage import ClientStorage

import diary
from client import Refusals, say

# A large entry, an undo and an abort occur once in this many attempts.
BIG_EVERY, UNDO_EVERY, ABORT_EVERY = 40, 9, 13
BIG_LEN = 2_000_000


class Veto:
    """Takes part in a transaction, and fails it after all others have voted."""

    def __init__(self, manager: TransactionManager) -> None:
        self.transaction_manager = manager

    def sortKey(self) -> str:
        return "~veto"

    def tpc_vote(self, transaction: object) -> None:
        raise Vetoed

    def nothing(self, transaction: object) -> None:
        pass

    abort = tpc_begin = commit = tpc_finish = tpc_abort = nothing


class Vetoed(Exception):
    pass


class Author:
    """Changes its own page."""

    def __init__(self, db: ZODB.DB, name: str, chance: random.Random) -> None:
        self._db = db
        self._name = name
        self._chance = chance
        self._manager = TransactionManager()
        # The last entry, and its tid, as long as it can be undone.
        self._last: tuple[str, str] | None = None
        self._is_settled = False

    def _settle(self) -> None:
        """Creates a page. Several authors may start at once and cause conflicts."""
        with self._db.transaction() as connection:
            if self._name not in connection.root():
                connection.root()[self._name] = diary.new_page()
        self._is_settled = True

    def act(self, number: int, serial: str) -> None:
        """Makes the next attempt."""
        if not self._is_settled:
            self._settle()
        last, self._last = self._last, None
        if number % ABORT_EVERY == ABORT_EVERY - 1:
            self._abort(serial)
        elif number % UNDO_EVERY == UNDO_EVERY - 1 and last:
            self._undo(*last)
        else:
            is_big = number % BIG_EVERY == BIG_EVERY // 2
            self._enter(serial, self._chance.randbytes(BIG_LEN) if is_big else b"")

    def _enter(self, serial: str, ballast: bytes) -> None:
        say(tries="enter", serial=serial)
        tid = self._commit(lambda page: diary.enter(page, serial, ballast))
        say(acknowledged=tid, time=time.time())
        self._last = serial, tid

    def _undo(self, serial: str, tid: str) -> None:
        say(tries="undo", serial=serial)
        self._db.undo(encodebytes(bytes.fromhex(tid)).rstrip(), self._manager.get())
        self._manager.commit()
        with self._db.transaction() as connection:
            page = connection.root()[self._name]
            page._p_activate()
            say(acknowledged=page._p_serial.hex(), time=time.time())

    def _abort(self, serial: str) -> None:
        def enter(page: PersistentMapping) -> None:
            diary.enter(page, serial)
            self._manager.get().join(Veto(self._manager))

        say(tries="abort", serial=serial)
        try:
            self._commit(enter)
        except Vetoed:
            say(aborted=True)

    def _commit(self, change: Callable[[PersistentMapping], None]) -> str:
        """Changes the page; returns the tid."""
        connection = self._db.open(self._manager)
        try:
            page = connection.root()[self._name]
            change(page)
            self._manager.commit()
            return page._p_serial.hex()
        finally:
            self._manager.abort()
            connection.close()

    def give_up(self) -> None:
        """Discards the state of a failed attempt."""
        self._manager.abort()


def serials(name: str) -> Iterator[str]:
    """Serial numbers that no other author uses."""
    started = time.time_ns()
    return (f"{name}-{started}-{number:06}" for number in itertools.count())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ports", type=int, nargs="+")
    parser.add_argument("--name", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="attempts per second")
    options = parser.parse_args()
    logging.getLogger("ZEO").addHandler(Refusals())
    logging.getLogger("ZEO").propagate = False
    # The tests kill servers during commits, so this is expected.
    logging.getLogger("txn").addHandler(logging.NullHandler())
    logging.getLogger("txn").propagate = False
    chance = random.Random(f"{options.name} {options.seed}")

    db = ZODB.DB(ClientStorage([("127.0.0.1", port) for port in options.ports]))
    author = Author(db, options.name, chance)
    for number, serial in enumerate(serials(options.name)):
        try:
            author.act(number, serial)
        except Exception as error:
            author.give_up()
            say(failed=f"{type(error).__name__}: {error}")
        time.sleep(chance.uniform(0.5, 1.5) / options.rate)


if __name__ == "__main__":
    main()

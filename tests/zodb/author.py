"""A client of ZEO that is_running a site's life: an author who writes into a diary.

It is given the ports of all servers, and does one thing after another, at a rate,
to whichever server is there: entries, now and then a big one; an entry undone; a
transaction that is voted and aborted. Prints a JSON object a line, before each try
what is tried, and what came of it, if it was told:

    {"tries": "enter" | "undo" | "abort", "serial": SERIAL}
    {"acknowledged": TID, "time": SECONDS SINCE 1970}
    {"aborted": true}
    {"failed": ERROR}
    {"refused": MESSAGE}

No serial number is used twice, not by an author who was restarted either. What
failed may have been committed all the same; what is aborted never is.
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

# Every so many tries there is a big entry, an undo, or an abort.
BIG_EVERY, UNDO_EVERY, ABORT_EVERY = 40, 9, 13
BIG_LEN = 2_000_000


class Veto:
    """A part of a transaction that says no when all others have voted."""

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
    """Does things to its own page."""

    def __init__(self, db: ZODB.DB, name: str, dice: random.Random) -> None:
        self._db = db
        self._name = name
        self._dice = dice
        self._manager = TransactionManager()
        # The last entry, and its tid, as long as it can be undone.
        self._last: tuple[str, str] | None = None
        self._is_settled = False

    def _settle(self) -> None:
        """Takes a page; several authors who come at once run into conflicts."""
        with self._db.transaction() as connection:
            if self._name not in connection.root():
                connection.root()[self._name] = diary.new_page()
        self._is_settled = True

    def act(self, number: int, serial: str) -> None:
        """Tries the next thing."""
        if not self._is_settled:
            self._settle()
        last, self._last = self._last, None
        if number % ABORT_EVERY == ABORT_EVERY - 1:
            self._abort(serial)
        elif number % UNDO_EVERY == UNDO_EVERY - 1 and last:
            self._undo(*last)
        else:
            is_big = number % BIG_EVERY == BIG_EVERY // 2
            self._enter(serial, self._dice.randbytes(BIG_LEN) if is_big else b"")

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
        """Forgets what a try that failed has left."""
        self._manager.abort()


def serials(name: str) -> Iterator[str]:
    """Serial numbers that no other author has used."""
    started = time.time_ns()
    return (f"{name}-{started}-{number:06}" for number in itertools.count())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ports", type=int, nargs="+")
    parser.add_argument("--name", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="tries a second")
    options = parser.parse_args()
    logging.getLogger("ZEO").addHandler(Refusals())
    logging.getLogger("ZEO").propagate = False
    # A server that dies in a commit is what the tests are about, and no news.
    logging.getLogger("txn").addHandler(logging.NullHandler())
    logging.getLogger("txn").propagate = False
    dice = random.Random(f"{options.name} {options.seed}")

    db = ZODB.DB(ClientStorage([("127.0.0.1", port) for port in options.ports]))
    author = Author(db, options.name, dice)
    for number, serial in enumerate(serials(options.name)):
        try:
            author.act(number, serial)
        except Exception as error:
            author.give_up()
            say(failed=f"{type(error).__name__}: {error}")
        time.sleep(dice.uniform(0.5, 1.5) / options.rate)


if __name__ == "__main__":
    main()

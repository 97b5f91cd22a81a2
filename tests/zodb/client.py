"""A client of ZEO that keeps writing.

It gets the ports of all servers, like the clients of a site, and writes small transactions to
whichever server accepts them. It prints one JSON object per line:

    {"acknowledged": TID, "time": SECONDS SINCE 1970}
    {"failed": ERROR}
    {"refused": MESSAGE}

A failed transaction may have been committed nevertheless, as with any database whose server
dies. ZEO's client refuses a server that lacks a transaction which the client has seen. It keeps
trying, and `refused` is printed each time.
"""

import argparse
import itertools
import json
import logging
import time
from typing import Any

import ZODB
from persistent.mapping import PersistentMapping
from transaction import TransactionManager
from ZEO.ClientStorage import ClientStorage


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


class Refusals(logging.Handler):
    """Prints when ZEO's client is ahead of a server."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.CRITICAL:
            say(refused=record.getMessage())


def write(db: ZODB.DB, number: int) -> None:
    """Commits a transaction."""
    manager = TransactionManager()
    connection = db.open(manager)
    try:
        page = connection.root()["page"]
        page["number"] = number
        manager.commit()
        say(acknowledged=page._p_serial.hex(), time=time.time())
    finally:
        manager.abort()
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ports", type=int, nargs="+")
    options = parser.parse_args()
    logging.getLogger("ZEO").addHandler(Refusals())
    logging.getLogger("ZEO").propagate = False
    # The tests kill servers during commits, so this is expected.
    logging.getLogger("txn").addHandler(logging.NullHandler())
    logging.getLogger("txn").propagate = False

    db = ZODB.DB(ClientStorage([("127.0.0.1", port) for port in options.ports]))
    with db.transaction() as connection:
        connection.root().setdefault("page", PersistentMapping())
    for number in itertools.count():
        try:
            write(db, number)
        except Exception as error:
            say(failed=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()

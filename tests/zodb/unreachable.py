"""Transactions that write only objects to which nothing in their file refers.

`unreachable.py STEP PATH` executes one of these steps on the database in PATH:

    create  creates a page, and changes the root
    change  changes the page, then removes it from the root
    undo    undoes the change of the page, which stays removed
    edit    changes an object to which the root refers
    add     adds an object to the root
    refer   adds an object to which only the database in PATH.main refers
    read    reads that object through the database in PATH.main
    pack    packs the database
"""

import argparse
import time
from contextlib import closing
from typing import Callable

import transaction
from persistent.mapping import PersistentMapping
from ZODB import DB
from ZODB.Connection import Connection
from ZODB.FileStorage import FileStorage

CHANGE = "changes the page"
TEXT = "only the other database refers to this"


def create(connection: Connection, _: Connection) -> None:
    root = connection.root()
    root["page"] = PersistentMapping(text="first")
    root["folder"] = PersistentMapping()
    transaction.commit()
    # A pack that frees nothing leaves the file as it is.
    root["title"] = "a site"
    transaction.commit()


def change(connection: Connection, _: Connection) -> None:
    root = connection.root()
    root["page"]["text"] = "second"
    transaction.get().note(CHANGE)
    transaction.commit()
    del root["page"]
    transaction.commit()


def undo(connection: Connection, _: Connection) -> None:
    db = connection.db()
    log = db.undoLog(0, 10)
    db.undo(next(entry["id"] for entry in log if CHANGE in str(entry["description"])))
    transaction.commit()


def edit(connection: Connection, _: Connection) -> None:
    connection.root()["folder"]["title"] = "edited"
    transaction.commit()


def add(connection: Connection, _: Connection) -> None:
    connection.root()["page"] = PersistentMapping(text="added")
    transaction.commit()


def refer(connection: Connection, main: Connection) -> None:
    page = PersistentMapping(text=TEXT)
    connection.add(page)
    main.root()["page"] = page
    transaction.commit()


def read(_: Connection, main: Connection) -> None:
    if main.root()["page"]["text"] != TEXT:
        raise ValueError("the object has other data")


def pack(connection: Connection, _: Connection) -> None:
    connection.db().pack(time.time() + 1)


STEPS: list[Callable[[Connection, Connection], None]] = [
    create,
    change,
    undo,
    edit,
    add,
    refer,
    read,
    pack,
]


def open_db(path: str, name: str, databases: dict[str, DB]) -> closing[DB]:
    """A database that can refer to the others in `databases`, and joins them."""
    return closing(DB(FileStorage(path), databases=databases, database_name=name))


def main() -> None:
    steps = {step.__name__: step for step in STEPS}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=steps)
    parser.add_argument("path")
    options = parser.parse_args()
    databases: dict[str, DB] = {}
    with (
        open_db(options.path, "site", databases) as site,
        open_db(f"{options.path}.main", "main", databases),
    ):
        connection = site.open()
        steps[options.step](connection, connection.get_connection("main"))
        transaction.abort()
        connection.close()


if __name__ == "__main__":
    main()

"""References between two databases that `across.py` has written.

Nothing here writes to the given files: ZODB opens copies of them, and hard links to the blobs.
"""

import random
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Mapping

import ZODB
from ZODB.POSException import POSKeyError

from blobs import link_tree
from store import open_storage


def content(number: int) -> bytes:
    """The content of the blob of a page."""
    return random.Random(number).randbytes(1000 + number)


def check(site: str, blobs: str, setup: str, catalog: str) -> dict[str, Any]:
    """Follows each reference between two databases, and compares the blobs.

    A reference must lead to its object if the other database has the transaction in which that
    was created, and must not lead anywhere otherwise. Returns the number of pages and of entries,
    the number of pairs whose references resolve in both directions, and what is `wrong`.
    """
    databases: dict[str, ZODB.DB] = {}
    with ExitStack() as stack:
        copies = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, path in [("catalog", catalog), ("site", site)]:
            shutil.copyfile(path, copies / name)
        # A transaction becomes visible only after its blobs.
        link_tree(blobs, str(copies / "blobs"))
        for name, options in [
            ("site", {"blobs": str(copies / "blobs"), "setup": setup}),
            ("catalog", {}),
        ]:
            storage, _ = open_storage(str(copies / name), **options)
            database = ZODB.DB(storage, databases=databases, database_name=name)
            stack.callback(database.close)
        connection = databases["site"].open()
        stack.callback(connection.close)
        pages = dict(connection.root().get("pages", {}))
        root = connection.get_connection("catalog").root()
        return _compare(pages, dict(root.get("entries", {})))


def _compare(pages: Mapping[int, Any], entries: Mapping[int, Any]) -> dict[str, Any]:
    wrong = []
    for number, page in pages.items():
        with page["blob"].open() as file:
            if file.read() != content(number):
                wrong.append(f"blob {number}")
        if not _leads(page, "entry", entries, number):
            wrong.append(f"page {number}")
    for number, entry in entries.items():
        if not _leads(entry, "page", pages, number):
            wrong.append(f"entry {number}")
    return {
        "pages": len(pages),
        "entries": len(entries),
        "pairs": len(pages.keys() & entries.keys()),
        "wrong": wrong,
    }


def _leads(start: Any, key: str, others: Mapping[int, Any], number: int) -> bool:
    """Whether a reference leads to its object, or nowhere if that is not there."""
    try:
        target = start[key]
        return target["number"] == number and target is others[number]
    except POSKeyError:
        return number not in others

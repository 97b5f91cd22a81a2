"""A database in which every transaction can be found again, even after a pack.

Each author has their own page, to avoid conflicts. An entry is a new object with a serial number,
which a pack keeps as long as the page refers to it. The page itself changes with each entry, so
that a pack always drops something.
"""

from contextlib import closing
from typing import Any, Iterator

import ZODB
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage


def new_page() -> PersistentMapping:
    """The page of an author without entries."""
    return PersistentMapping(entries=OOBTree(), last="", ballast=None)


def enter(page: PersistentMapping, serial: str, ballast: bytes = b"") -> None:
    """Adds an entry. Ballast replaces the page's previous ballast."""
    page["entries"][serial] = PersistentMapping(serial=serial)
    page["last"] = serial
    if ballast:
        page["ballast"] = PersistentMapping(data=ballast)


def serials(path: str) -> list[str]:
    """The serial numbers of all entries in a file. Each entry is loaded."""
    with closing(ZODB.DB(FileStorage(path, read_only=True))) as db:
        connection = db.open()
        return sorted(_serials(connection.root()))


def _serials(root: Any) -> Iterator[str]:
    for page in root.values():
        for serial, entry in page["entries"].items():
            if entry["serial"] != serial:
                raise ValueError(f"the entry {serial} holds {entry['serial']}")
            entry._p_deactivate()
            yield serial

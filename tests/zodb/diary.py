"""A database in which every transaction can be found again, packed or not.

Each author has a page of its own, so that none runs into conflicts with others.
An entry is a new object, which a pack keeps as long as the page has it, under a
serial number; the page itself changes with every entry, so that a pack always has
something to drop.
"""

from contextlib import closing
from typing import Any, Iterator

import ZODB
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage


def new_page() -> PersistentMapping:
    """The page of an author who has written nothing yet."""
    return PersistentMapping(entries=OOBTree(), last="", ballast=None)


def enter(page: PersistentMapping, serial: str, ballast: bytes = b"") -> None:
    """Makes an entry; ballast takes the place of what was there before."""
    page["entries"][serial] = PersistentMapping(serial=serial)
    page["last"] = serial
    if ballast:
        page["ballast"] = PersistentMapping(data=ballast)


def serials(path: str) -> list[str]:
    """The serial numbers of all entries in a file, each of which is loaded."""
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

"""A client of ZEO that commits across two databases.

    across.py PORT [--count N]

The server on PORT has the storages `1` (the site, with blobs) and `catalog`. Each transaction
adds a page with a blob to the site, and an entry to the catalog. Both refer to each other, so
that there are references between the databases in both directions. See `references.py`.

It prints one JSON object per line, as `client.py` does. Once there are N pages, it waits until it is
killed. If there are some pages already, it continues after them.
"""

import argparse
import itertools
import signal
import tempfile
import time

import ZODB
from BTrees.IOBTree import IOBTree
from persistent.mapping import PersistentMapping
from transaction import TransactionManager
from ZEO.ClientStorage import ClientStorage
from ZODB.blob import Blob

from client import say
from references import content


def write(site: ZODB.DB, number: int) -> None:
    """Commits a transaction in both databases."""
    manager = TransactionManager()
    connection = site.open(manager)
    try:
        catalog = connection.get_connection("catalog")
        page = PersistentMapping(number=number, blob=Blob(content(number)))
        entry = PersistentMapping(number=number, page=page)
        page["entry"] = entry
        # Each of the two is reachable from both databases, so this decides where it is stored.
        connection.add(page)
        catalog.add(entry)
        connection.root()["pages"][number] = page
        catalog.root()["entries"][number] = entry
        manager.commit()
        say(acknowledged=page._p_serial.hex(), time=time.time())
    finally:
        manager.abort()
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--count", type=int, required=True)
    options = parser.parse_args()

    address = ("127.0.0.1", options.port)
    databases: dict[str, ZODB.DB] = {}
    with tempfile.TemporaryDirectory() as blobs:
        for name, storage in [
            ("site", ClientStorage(address, storage="1", blob_dir=blobs)),
            ("catalog", ClientStorage(address, storage="catalog")),
        ]:
            ZODB.DB(storage, databases=databases, database_name=name)
        for name, key in [("site", "pages"), ("catalog", "entries")]:
            with databases[name].transaction() as connection:
                connection.root().setdefault(key, IOBTree())
        with databases["site"].transaction() as connection:
            first = len(connection.root()["pages"])
        for number in itertools.count(first):
            if number == options.count:
                signal.pause()
            write(databases["site"], number)


if __name__ == "__main__":
    main()

"""A site that people edit: `editor.py PATH EDITS [--pack BEFORE] [--seed N]`.

Each edit is a transaction of a real database: it adds a document to a folder,
changes one, deletes one, or undoes the last edit. `--pack` packs the database
afterwards, to the moment before its last BEFORE edits.
"""

import argparse
import os
import random
import time

import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage

DOCUMENTS_MAX = 30


def edit(db: ZODB.DB, chance: random.Random) -> None:
    if chance.random() < 0.1:
        last = db.undoLog(0, 1)
        if last and "edit" in str(last[0]["description"]):
            db.undo(last[0]["id"])
            transaction.commit()
            return
    with db.transaction(note="edit") as connection:
        folder = connection.root().setdefault("folder", PersistentMapping())
        name = f"document-{chance.randrange(DOCUMENTS_MAX)}"
        if name in folder and chance.random() < 0.2:
            del folder[name]
        elif name in folder and chance.random() < 0.7:
            folder[name]["text"] = os.urandom(chance.randrange(2000))
        else:
            folder[name] = PersistentMapping(text=os.urandom(500))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("edits", type=int)
    parser.add_argument("--pack", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    db = ZODB.DB(FileStorage(options.path))
    times = [time.time()]
    for _ in range(options.edits):
        edit(db, chance)
        times.append(time.time())
        time.sleep(0.001)
    if options.pack is not None:
        db.pack(times[-1 - options.pack])
    db.close()


if __name__ == "__main__":
    main()

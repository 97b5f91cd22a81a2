"""A FileStorage and the operations that tests perform on it.

The root only gains references to objects that are created in the same transaction. So no undo
can leave a reference to a missing object, which would make a pack fail.
"""

import os
import random
import sys
from base64 import decodebytes, encodebytes
from typing import Any, Callable, Iterator, Mapping

from persistent.TimeStamp import TimeStamp
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.POSException import UndoError
from ZODB.serialize import referencesf
from ZODB.utils import z64

import probe
import records

ROOT_REFERENCES_MAX = 40
UNDO_DEPTH = 5
PACK_MARGIN_SECONDS = 2e-6  # a float of seconds since 1970 is coarser than a tid


class Store:
    """An open FileStorage with at most one voted transaction.

    `tid` is the tid of the last committed transaction, in hex. `random` decides everything that
    is not given, including contents.
    """

    def __init__(
        self,
        path: str,
        *,
        read_only: bool = False,
        create: bool = False,
        pack_gc: bool = True,
        seed: int = 0,
    ) -> None:
        self.path = path
        self.storage = FileStorage(
            path, create=create, read_only=read_only, pack_gc=pack_gc
        )
        self.random = random.Random(seed)
        self.tid: str | None = probe.describe(self.storage)["last_tid"]
        self._oids = list(self.storage._index)
        self._voted: TransactionMetaData | None = None
        self._created: list[bytes] = []

    def close(self) -> None:
        self.storage.close()

    def abandon(self) -> None:
        """Releases the files and the lock, as the end of a process would.

        Saving the index is all that close() does to the disk.
        """
        self.storage._save_index = lambda: None
        self.storage.close()

    @property
    def position(self) -> int:
        return self.storage.getSize()

    def commit(self, **what: Any) -> None:
        self.vote(**what)
        self.finish()

    def vote(
        self,
        objects: int = 1,
        size: int = 100,
        user: str = "",
        description: str = "",
        extension: Mapping[str, Any] | None = None,
    ) -> None:
        """Votes on a transaction with `objects` records of `size` bytes each."""
        meta = TransactionMetaData(user, description, dict(extension or {}))
        self._vote(meta, lambda: self._store_objects(meta, objects, size))

    def finish(self) -> None:
        self.tid = self.storage.tpc_finish(self._take_voted()).hex()
        self._oids.extend(self._created)

    def abort(self) -> None:
        self.storage.tpc_abort(self._take_voted())

    def undo(self, tid: str | None = None) -> None:
        """Undoes a transaction; without a tid, the last that can be undone."""
        if tid is None:
            undoable = self.storage.undoLog(0, 1)
            if not undoable:
                raise ValueError("no transaction to undo")
            transaction_id = undoable[0]["id"]
        else:
            transaction_id = encodebytes(bytes.fromhex(tid)).rstrip()
        meta = TransactionMetaData("", "undo")
        self._vote(meta, lambda: self.storage.undo(transaction_id, meta))
        self.finish()

    def pack(self, keep: int = 0) -> bool:
        """Packs all but the last `keep` transactions; returns whether the file changed."""
        self._require_idle()
        with open(self.path, "rb") as file:
            tids = [header.tid for _, header in probe.headers(file)]
        if keep >= len(tids):
            return False
        before = os.stat(self.path).st_ino
        pack_time = TimeStamp(tids[-1 - keep]).timeTime() + PACK_MARGIN_SECONDS
        self.storage.pack(pack_time, referencesf)
        self._oids = list(self.storage._index)
        return os.stat(self.path).st_ino != before

    def undo_some(self) -> bool:
        """Undoes one of the last transactions; False if ZODB refuses.

        It never undoes the creation of the root, since a pack needs a root.
        """
        root_tid = self._creation_of_root()
        undoable = [
            tid
            for tid in map(_tid_of, self.storage.undoLog(0, UNDO_DEPTH))
            if tid != root_tid
        ]
        if not undoable:
            return False
        try:
            self.undo(self.random.choice(undoable).hex())
        except UndoError:
            return False
        return True

    def _creation_of_root(self) -> bytes | None:
        if z64 not in self.storage._index:
            return None
        return self.storage.history(z64, size=sys.maxsize)[-1]["tid"]

    def _require_idle(self) -> None:
        if self._voted is not None:
            raise RuntimeError("a voted transaction awaits finish or abort")

    def _take_voted(self) -> TransactionMetaData:
        if self._voted is None:
            raise RuntimeError("no voted transaction")
        meta, self._voted = self._voted, None
        return meta

    def _vote(self, meta: TransactionMetaData, write: Callable[[], Any]) -> None:
        self._require_idle()
        self._created = []
        self.storage.tpc_begin(meta)
        try:
            write()
            self.storage.tpc_vote(meta)
        except BaseException:
            self.storage.tpc_abort(meta)
            raise
        self._voted = meta

    def _store_objects(
        self, meta: TransactionMetaData, objects: int, size: int
    ) -> None:
        oids, self._created = self._choose(objects)
        for oid in oids:
            data = (
                self._next_root()
                if oid == z64
                else records.mapping({"content": self.random.randbytes(size)})
            )
            serial = self.storage.lastTid(oid) or z64
            self.storage.store(oid, serial, data, "", meta)

    def _choose(self, objects: int) -> tuple[list[bytes], list[bytes]]:
        """The oids to store, the root first, and the new ones among them."""
        stored: list[bytes] = []
        created: list[bytes] = []
        if objects and z64 not in self.storage._index:
            stored, created = [z64], [z64]
        elif objects > 1 and self.random.random() < 0.5 and self._alive(z64):
            stored = [z64]
        while len(stored) < objects:
            old = self._some_old_oid()
            if old is None or old in stored:
                created.append(self.storage.new_oid())
                stored.append(created[-1])
            else:
                stored.append(old)
        return stored, created

    def _some_old_oid(self) -> bytes | None:
        """In half of the calls, an existing object other than the root."""
        if not self._oids or self.random.random() < 0.5:
            return None
        oid = self.random.choice(self._oids)
        return oid if oid != z64 and self._alive(oid) else None

    def _alive(self, oid: bytes) -> bool:
        return self.storage.lastTid(oid) is not None

    def _next_root(self) -> bytes:
        """A root with a part of the old references and half of the new objects."""
        old = referencesf(self.storage.load(z64)[0]) if self._alive(z64) else []
        if len(old) > ROOT_REFERENCES_MAX:
            old = self.random.sample(old, ROOT_REFERENCES_MAX // 2)
        new = [oid for oid in self._created if oid != z64]
        return records.root(old + new[::2])


def copy_without(path: str, to: str, tids: set[bytes]) -> None:
    """Copies a FileStorage without the transactions in `tids` to a new file."""
    source = FileStorage(path, read_only=True)
    copy = FileStorage(to, create=True)
    try:
        copy.copyTransactionsFrom(_Without(source, tids))
    finally:
        copy.close()
        source.close()


class _Without:
    """A storage without some transactions, for `copyTransactionsFrom`."""

    def __init__(self, storage: FileStorage, tids: set[bytes]) -> None:
        self._storage = storage
        self._tids = tids

    def iterator(self) -> Iterator[Any]:
        for transaction in self._storage.iterator():
            if transaction.tid not in self._tids:
                yield transaction


def _tid_of(undo_entry: Mapping[str, Any]) -> bytes:
    return decodebytes(undo_entry["id"] + b"\n")

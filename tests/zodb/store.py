"""A FileStorage and the operations that tests perform on it.

The root only gains references to objects that are created in the same transaction. So no undo
can leave a reference to a missing object, which would make a pack fail.

A storage with blobs has one of ZODB's two set-ups, which write different files:

- `fs`: a FileStorage with `blob_dir`, as `<filestorage>` with `blob-dir`;
- `proxy`: a BlobStorage around a FileStorage, as `<blobstorage>`.
"""

import os
import random
import sys
import tempfile
from base64 import decodebytes, encodebytes
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

from persistent.TimeStamp import TimeStamp
from ZODB.blob import LAYOUT_MARKER, Blob, BlobStorage, is_blob_record
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError, UndoError
from ZODB.serialize import referencesf
from ZODB.utils import z64

import probe
import records

ROOT_REFERENCES_MAX = 40
UNDO_DEPTH = 5
BLOB_RECORD = records.record(Blob, None)
PACK_MARGIN_SECONDS = 2e-6  # a float of seconds since 1970 is coarser than a tid


def open_storage(
    path: str,
    *,
    blobs: str | None = None,
    setup: str = "fs",
    layout: str = "bushy",
    create: bool = False,
    **options: Any,
) -> tuple[Any, FileStorage]:
    """The storage that serves a file, and the FileStorage in it.

    `blobs` is the blob directory. If it is new, it gets the layout.
    """
    if setup not in ("fs", "proxy"):
        raise ValueError(f"unknown set-up {setup!r}")
    if blobs is None:
        storage = FileStorage(path, create=create, **options)
        return storage, storage
    if create:
        # A FileStorage with a blob directory removes it when it creates its file.
        FileStorage(path, create=True).close()
        marker = Path(blobs, LAYOUT_MARKER)
        marker.parent.mkdir(exist_ok=True)
        marker.write_text(layout)
    if setup == "fs":
        storage = FileStorage(path, blob_dir=blobs, **options)
        return storage, storage
    inner = FileStorage(path, **options)
    return BlobStorage(blobs, inner), inner


class Store:
    """An open FileStorage with at most one voted transaction.

    `tid` is the tid of the last committed transaction, in hex. `random` decides everything that
    is not given, including contents.

    If there is a journal, a line with oid, tid, size and SHA-256 is added to it for each blob
    file of a transaction, before the transaction counts as finished.
    """

    def __init__(
        self,
        path: str,
        *,
        read_only: bool = False,
        create: bool = False,
        pack_gc: bool = True,
        seed: int = 0,
        blobs: str | None = None,
        setup: str = "fs",
        layout: str = "bushy",
        pack_keep_old: bool = True,
        journal: str | None = None,
    ) -> None:
        self.path = path
        self.storage, self._file_storage = open_storage(
            path,
            blobs=blobs,
            setup=setup,
            layout=layout,
            create=create,
            read_only=read_only,
            pack_gc=pack_gc,
            pack_keep_old=pack_keep_old,
        )
        self.random = random.Random(seed)
        self.tid: str | None = probe.describe(self._file_storage)["last_tid"]
        self.has_blobs = blobs is not None
        self._journal = journal
        self._find_objects()
        self._voted: TransactionMetaData | None = None
        self._created: list[bytes] = []

    def close(self) -> None:
        self.storage.close()

    def abandon(self) -> None:
        """Releases the files and the lock, as the end of a process would.

        Saving the index is all that close() does to the disk.
        """
        self._file_storage._save_index = lambda: None
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
        blobs: int = 0,
        changes: int = 0,
        deletions: int = 0,
        blob_size: int = 100,
    ) -> None:
        """Votes on a transaction with `objects` records of `size` bytes each.

        It also creates `blobs`, changes some, and removes the references to others. Blobs
        are `blob_size` bytes long. Creations and deletions change the root.
        """
        meta = TransactionMetaData(user, description, dict(extension or {}))
        self._vote(
            meta,
            lambda: self._store_all(
                meta, objects, size, Blobs(blobs, changes, deletions, blob_size)
            ),
        )

    def finish(self) -> None:
        tid = self.storage.tpc_finish(self._take_voted())
        self._oids.extend(self._created)
        self._blobs.extend(self._created_blobs)
        self._enter_in_journal(tid)
        self.tid = tid.hex()

    def abort(self) -> None:
        self.storage.tpc_abort(self._take_voted())

    def drop(self, **what: Any) -> None:
        """Aborts a transaction that was not voted on.

        With the set-up `fs`, its blob files stay.
        """
        meta = TransactionMetaData("", "drop")
        self.storage.tpc_begin(meta)
        try:
            self._created_blobs = []
            self._store_blobs(meta, Blobs(**what))
        finally:
            self.storage.tpc_abort(meta)

    def undo(self, tid: str | None = None, count: int = 1) -> None:
        """Undoes a transaction, or without a tid the last `count` in one transaction."""
        if tid is None:
            ids = [entry["id"] for entry in self.storage.undoLog(0, count)]
            if not ids:
                raise ValueError("no transaction to undo")
        else:
            ids = [encodebytes(bytes.fromhex(tid)).rstrip()]
        self._undo(ids)

    def _undo(self, ids: list[bytes]) -> None:
        meta = TransactionMetaData("", "undo")

        def write() -> None:
            for transaction_id in ids:
                self.storage.undo(transaction_id, meta)

        self._vote(meta, write)
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
        self._find_objects()
        return os.stat(self.path).st_ino != before

    def undo_some(self, count: int = 1) -> bool:
        """Undoes some of the last transactions in one; False if ZODB refuses.

        It never undoes the creation of the root, since a pack needs a root.
        """
        root_tid = self._creation_of_root()
        undoable = [
            entry["id"]
            for entry in self.storage.undoLog(0, UNDO_DEPTH)
            if _tid_of(entry) != root_tid
        ]
        if not undoable:
            return False
        chosen = [self.random.choice(undoable)]
        chosen += [it for it in undoable if it not in chosen][: count - 1]
        try:
            self._undo(chosen)
        except (UndoError, POSKeyError, OSError):
            # The undo needs the file of a blob that a pack has removed.
            return False
        return True

    def _creation_of_root(self) -> bytes | None:
        if z64 not in self._file_storage._index:
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
        self._created, self._created_blobs = [], []
        self.storage.tpc_begin(meta)
        try:
            write()
            self.storage.tpc_vote(meta)
        except BaseException:
            self.storage.tpc_abort(meta)
            raise
        self._voted = meta

    def _find_objects(self) -> None:
        """Finds the oids of all objects, and those of blobs that are not undone."""
        self._oids: list[bytes] = []
        self._blobs: list[bytes] = []
        for oid in self._file_storage._index:
            is_blob = self.has_blobs and is_blob_record(self._record(oid))
            (self._blobs if is_blob else self._oids).append(oid)

    def _record(self, oid: bytes) -> bytes:
        """The current record of an object, empty if its creation is undone."""
        try:
            return self.storage.load(oid)[0]
        except POSKeyError:
            return b""

    def _enter_in_journal(self, tid: bytes) -> None:
        if self._journal is None:
            return
        with open(self._journal, "a") as journal:
            for transaction in self._file_storage.iterator(tid, tid):
                for oid in {record.oid for record in transaction}:
                    path = self.storage.fshelper.getBlobFilename(oid, tid)
                    if os.path.exists(path):
                        size, digest = probe.size_and_digest(path)
                        print(oid.hex(), tid.hex(), size, digest, file=journal)

    def _store_all(
        self, meta: TransactionMetaData, objects: int, size: int, blobs: "Blobs"
    ) -> None:
        deleted = self._store_blobs(meta, blobs)
        self._store_objects(meta, objects, size, deleted)

    def _store_blobs(self, meta: TransactionMetaData, blobs: "Blobs") -> set[bytes]:
        """Stores blobs; returns those to which the root shall no longer refer."""
        alive = [oid for oid in self._blobs if self._record(oid)]
        changed = self.random.sample(alive, min(blobs.changes, len(alive)))
        self._created_blobs = [self.storage.new_oid() for _ in range(blobs.blobs)]
        for oid in self._created_blobs + changed:
            handle, path = tempfile.mkstemp(dir=self.storage.temporaryDirectory())
            with open(handle, "wb") as file:
                file.write(self.random.randbytes(blobs.blob_size))
            serial = self.storage.lastTid(oid) or z64
            self.storage.storeBlob(oid, serial, BLOB_RECORD, path, "", meta)
        kept = [oid for oid in alive if oid not in changed]
        return set(self.random.sample(kept, min(blobs.deletions, len(kept))))

    def _store_objects(
        self,
        meta: TransactionMetaData,
        objects: int,
        size: int,
        deleted: set[bytes],
    ) -> None:
        oids, self._created = self._choose(objects)
        if (self._created_blobs or deleted) and z64 not in oids:
            oids.insert(0, z64)
            if z64 not in self._file_storage._index:
                self._created.append(z64)
        for oid in oids:
            data = (
                self._next_root(deleted)
                if oid == z64
                else records.mapping({"content": self.random.randbytes(size)})
            )
            serial = self.storage.lastTid(oid) or z64
            self.storage.store(oid, serial, data, "", meta)

    def _choose(self, objects: int) -> tuple[list[bytes], list[bytes]]:
        """The oids to store, the root first, and the new ones among them."""
        stored: list[bytes] = []
        created: list[bytes] = []
        if objects and z64 not in self._file_storage._index:
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

    def _next_root(self, deleted: set[bytes]) -> bytes:
        """A root with a part of the old references, half of the new objects, all new blobs."""
        old = referencesf(self.storage.load(z64)[0]) if self._alive(z64) else []
        old = [oid for oid in old if oid not in deleted]
        if len(old) > ROOT_REFERENCES_MAX and not self._created_blobs:
            old = self.random.sample(old, ROOT_REFERENCES_MAX // 2)
        new = [oid for oid in self._created if oid != z64]
        return records.root(old + new[::2] + self._created_blobs)


@dataclass(frozen=True)
class Blobs:
    """How many blobs a transaction creates, changes and deletes, and their size in bytes."""

    blobs: int = 0
    changes: int = 0
    deletions: int = 0
    blob_size: int = 100


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

"""ZODB's view of a file: its transactions, a full scan, an opening.

Nothing here writes to the given file. An opening that could change the file uses a temporary
copy.
"""

import logging
import os
import shutil
import sys
import tempfile
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Iterator

from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import TempFormatter, read_index
from ZODB.FileStorage.format import TRANS_HDR_LEN, CorruptedError, TxnHeader
from ZODB.fsIndex import fsIndex
from ZODB.POSException import POSKeyError
from ZODB.utils import maxtid, p64, u64, z64

MAGIC = b"FS30"
MAGIC_PYTHON2 = b"FS21"
FIRST_TRANSACTION = 4


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, log_record: logging.LogRecord) -> None:
        self.messages.append(log_record.getMessage())


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collects ZODB's log messages of level WARNING and above during the block."""
    logger = logging.getLogger("ZODB")
    collector = _Collector()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield collector.messages
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate


class ShownAsPython3:
    """A file that seems to start with FS30."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.name = file.name

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()
        data = self._file.read(size)
        return (MAGIC[start:] + data[max(len(MAGIC) - start, 0):])[:len(data)]


def committed_tid(file: BinaryIO, position: int) -> str | None:
    """The tid, in hex, of the transaction that ends at `position`.

    ZODB's lastTransaction() cannot be used: after an opening that truncated an unfinished
    tail, it returns the tid of that tail.
    """
    if position <= FIRST_TRANSACTION:
        return None
    file.seek(position - 8)
    file.seek(position - 8 - u64(file.read(8)))
    return file.read(8).hex()


def tid_or_none(tid: bytes) -> str | None:
    """A tid in hex, or None for ZODB's zero tid."""
    return None if tid == z64 else tid.hex()


def headers(file: BinaryIO) -> Iterator[tuple[int, TxnHeader]]:
    """Position and header of each committed transaction.

    They are read with ZODB's header reader; its FileIterator fails on status `u`.
    """
    size = file.seek(0, os.SEEK_END)
    formatter = TempFormatter(file)
    pos = FIRST_TRANSACTION
    while pos + TRANS_HDR_LEN <= size:
        header = formatter._read_txn_header(pos)
        end = pos + header.tlen + 8
        if header.status == "c" or end > size or header.tlen < header.headerlen():
            return
        yield pos, header
        pos = end


def _count_records(file: BinaryIO, pos: int, header: TxnHeader) -> int:
    if header.status == "u":
        return 0
    formatter = TempFormatter(file)
    at, end, count = pos + header.headerlen(), pos + header.tlen, 0
    while at < end:
        at += formatter._read_data_header(at).recordlen()
        count += 1
    return count


def transactions(path: str) -> list[dict[str, Any]]:
    """Each committed transaction. For status `u` the number of records is 0."""
    with open(path, "rb") as file:
        return [
            {
                "pos": pos,
                "tid": header.tid.hex(),
                "tlen": header.tlen,
                "status": header.status,
                "user": header.user.decode("utf-8", "replace"),
                "description": header.descr.decode("utf-8", "replace"),
                "records": _count_records(file, pos, header),
            }
            for pos, header in headers(file)
        ]


def scan(path: str, magic: str = "any") -> dict[str, Any]:
    """ZODB's full, read-only scan of the file, without its index.

    `magic` is the only magic allowed, or "any" for both of ZODB's.
    """
    with open(path, "rb") as file:
        found = file.read(len(MAGIC)).decode("latin-1")
        if magic not in ("any", found):
            raise ValueError(f"magic is {found!r}, not {magic!r}")
        shown = ShownAsPython3(file) if found.encode() == MAGIC_PYTHON2 else file
        index = fsIndex()
        position, _, ltid = read_index(shown, path, index, {}, read_only=1)
        return {
            "position": position,
            "last_tid": committed_tid(file, position),
            "zodb_ltid": tid_or_none(ltid),
            "objects": len(index),
            "size": os.fstat(file.fileno()).st_size,
        }


def save_index(path: str, to: str) -> dict[str, Any]:
    """Saves the index that ZODB's scan of a file gives, as ZODB would."""
    with open(path, "rb") as file:
        found = file.read(len(MAGIC))
        shown = ShownAsPython3(file) if found == MAGIC_PYTHON2 else file
        index = fsIndex()
        position = read_index(shown, path, index, {}, read_only=1)[0]
    index.save(position, to)
    return {"position": position, "objects": len(index)}


def save_index_of(
    objects: list[list[int]], position: int, to: str
) -> dict[str, Any]:
    """Saves an index of these oids and positions, as ZODB would."""
    index = fsIndex()
    for oid, at in objects:
        index[p64(oid)] = at
    index.save(position, to)
    loaded = fsIndex.load(to)
    assert loaded["pos"] == position
    return {"objects": len(loaded["index"])}


def _copy_for_opening(path: str, directory: str) -> str:
    copy = Path(directory, Path(path).name)
    shutil.copyfile(path, copy)
    if os.path.exists(path + ".index"):
        shutil.copyfile(path + ".index", f"{copy}.index")
    with open(copy, "r+b") as file:
        if file.read(len(MAGIC_PYTHON2)) == MAGIC_PYTHON2:
            file.seek(0)
            file.write(MAGIC)
    return str(copy)


def open_copy(path: str) -> dict[str, Any]:
    """Opens a copy read-write, index included, and closes it again.

    A copy of an FS21 file gets the magic that Python 3's ZODB accepts.
    """
    with tempfile.TemporaryDirectory() as directory:
        copy = _copy_for_opening(path, directory)
        with closing(FileStorage(copy)) as storage:
            answer = describe(storage)
        answer["size_after"] = os.path.getsize(copy)
        answer["tr_files"] = sorted(
            file.name for file in Path(directory).glob(f"{Path(copy).name}.tr*")
        )
        return answer


def describe(storage: FileStorage) -> dict[str, Any]:
    """The state of an open storage."""
    position = storage.getSize()
    with open(storage.getName(), "rb") as file:
        last_tid = committed_tid(file, position)
    return {
        "position": position,
        "last_tid": last_tid,
        "zodb_ltid": tid_or_none(storage.lastTransaction()),
        "objects": len(storage),
        "used_index": bool(storage._used_index),
    }


def load_all(path: str) -> dict[str, int]:
    """Loads every object of a read-only storage, following back pointers."""
    counts = {"objects": 0, "undone": 0}
    with closing(FileStorage(path, read_only=True)) as storage:
        for oid in storage._index:
            try:
                storage.load(oid)
                counts["objects"] += 1
            except POSKeyError:
                counts["undone"] += 1
    return counts


def read_all(path: str) -> dict[str, Any]:
    """Digests of everything that a read-only storage serves, without an index.

    `records` covers all records of all transactions, `current` every object as it is loaded now
    and by a new reader, and `history` the revisions of every object.
    """
    records, current, history = sha256(), sha256(), sha256()
    with closing(FileStorage(path, read_only=True)) as storage:
        position = storage.getSize()
        for transaction in storage.iterator():
            for record in transaction:
                update(records, transaction.tid, record.oid, record.tid, record.data)
        for oid in storage._index:
            for load in (lambda: storage.load(oid), lambda: storage.loadBefore(oid, maxtid)):
                try:
                    update(current, oid, *(load() or (b"none",))[:2])
                except POSKeyError:
                    update(current, oid, b"undone")
            try:
                tids = [entry["tid"] for entry in storage.history(oid, size=sys.maxsize)]
            except (CorruptedError, ValueError):
                tids = [b"corrupted"]
            update(history, oid, *tids)
    digests = {"records": records, "current": current, "history": history}
    return {"position": position, **{name: it.hexdigest() for name, it in digests.items()}}


def size_and_digest(path: str) -> tuple[int, str]:
    """The size of a file in bytes, and its SHA-256."""
    data = Path(path).read_bytes()
    return len(data), sha256(data).hexdigest()


def update(digest: Any, *parts: bytes | None) -> None:
    """Adds the parts and their lengths to the digest."""
    for part in parts:
        digest.update(b"-" if part is None else b"%d:%s" % (len(part), part))


def compare_index(path: str) -> dict[str, bool]:
    """Whether ZODB uses the index beside a file, and finds all objects with it.

    If the opening fails, the index is not used.
    """
    with open(path, "rb") as file:
        scanned = fsIndex()
        position = read_index(file, path, scanned, {}, read_only=1)[0]
    try:
        storage = FileStorage(path, read_only=True)
    except Exception:
        return {"used": False, "same": False}
    with closing(storage):
        index = storage._index
        same = list(index.items()) == list(scanned.items()) and all(
            index.get(oid) == at for oid, at in scanned.items()
        )
        used = bool(storage._used_index)
        return {"used": used, "same": same and storage.getSize() == position}

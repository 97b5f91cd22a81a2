"""ZODB's view of transactions that were set aside in a file of their own."""

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, Iterator

from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileIterator, FileStorage
from ZODB.POSException import POSKeyError
from ZODB.utils import maxtid, p64, u64


def compare(path: str, old: str, start: int, base: str | None) -> dict[str, Any]:
    """Compares the file at `path` with the transactions of `old` from the position `start` on.

    Fails if they differ, or if ZODB serves other revisions. If there is a `base`, which has the
    transactions before them, both together must serve what `old` does.
    """
    expected = list(_transactions(old, start))
    if list(_transactions(path, 4)) != expected:
        raise ValueError(f"{path} has other transactions than {old} from {start} on")
    oids = {oid for *_, records in expected for oid, *_ in records}
    with (
        closing(FileStorage(old, read_only=True)) as whole,
        closing(FileStorage(path, read_only=True)) as part,
    ):
        if len(part) != len(oids):
            raise ValueError(f"{len(part)} objects instead of {len(oids)}")
        for oid in oids:
            if _load(part, oid) != _load(whole, oid):
                raise ValueError(f"another revision of {oid.hex()}")
        if base is not None:
            _compare_together(whole, part, base, expected)
    return {"transactions": len(expected), "objects": len(oids)}


def _compare_together(
    whole: FileStorage, part: FileStorage, base: str, own: list[Any]
) -> None:
    """Everything that `whole` serves, a DemoStorage of `part` over `base` serves, too.

    It also serves an older revision of an object whose creation was undone: DemoStorage does not
    distinguish such an object from one that `part` lacks.
    """
    stop = p64(u64(_tid_before(whole, own[0][0])) + 1)
    with tempfile.TemporaryDirectory() as directory:
        # If there is an index beside the file, ZODB ignores `stop`.
        link = Path(directory, "base.fs")
        link.symlink_to(Path(base).resolve())
        before = FileStorage(str(link), read_only=True, stop=stop)
        with closing(
            DemoStorage(base=before, changes=part, close_changes_on_close=False)
        ) as both:
            for oid in whole._index:
                expected = _load(whole, oid)
                if expected is not None and _load(both, oid) != expected:
                    raise ValueError(f"another state of {oid.hex()} over {base}")


def _tid_before(storage: FileStorage, tid: bytes) -> bytes:
    before = [it.tid for it in storage.iterator(stop=p64(u64(tid) - 1))]
    return before[-1]


def _load(storage: Any, oid: bytes) -> tuple[bytes, bytes] | None:
    try:
        found = storage.loadBefore(oid, maxtid)
    except POSKeyError:
        return None
    return found and found[:2]


def _transactions(path: str, start: int) -> Iterator[tuple[Any, ...]]:
    with closing(FileIterator(path, pos=start)) as transactions:
        for it in transactions:
            records = [(record.oid, record.tid, record.data) for record in it]
            yield it.tid, it.status, it.user, it.description, it.extension_bytes, records

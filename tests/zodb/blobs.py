"""ZODB's view of a file together with its blob directory.

Nothing here writes to the given files: ZODB opens a copy of the file, and hard links to the
blobs.
"""

import os
import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator

from ZODB.blob import FilesystemHelper, is_blob_record
from ZODB.POSException import POSKeyError
from ZODB.serialize import referencesf
from ZODB.utils import z64

from probe import size_and_digest
from store import open_storage

# A blob file as its oid and tid, 16 hexadecimal digits each.
Key = tuple[str, str]


@dataclass
class Found:
    """The blobs of a storage: all that it can load, and what is wrong with them."""

    blobs: int = 0
    bytes: int = 0
    missing: list[str] = field(default_factory=list)
    missing_reachable: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def check(
    path: str,
    blobs: str,
    setup: str = "fs",
    expected: str | None = None,
    journal: str | None = None,
) -> dict[str, Any]:
    """Loads every blob of every record that ZODB can still load, and compares its bytes.

    The expected bytes are in the journal of a Store, or in the blob directory `expected`. A
    blob is `missing` if its file is, `different` if its bytes are not the expected ones, and
    `unknown` if nothing is expected. Missing blobs to which the root leads are listed again.
    """
    digests = _digests(expected, journal)
    found = Found()
    with tempfile.TemporaryDirectory() as directory:
        copy, linked = str(Path(directory, "Data.fs")), str(Path(directory, "blobs"))
        shutil.copyfile(path, copy)
        link_tree(blobs, linked)
        storage, _ = open_storage(copy, blobs=linked, setup=setup)
        with closing(storage):
            reachable = set(_reachable(storage))
            for oid, tid in _blob_records(storage):
                _check_one(storage, oid, tid, digests, (oid, tid) in reachable, found)
    return vars(found)


def _check_one(
    storage: Any,
    oid: bytes,
    tid: bytes,
    digests: dict[Key, tuple[int, str]],
    is_reachable: bool,
    found: Found,
) -> None:
    key = oid.hex(), tid.hex()
    name = " ".join(key)
    try:
        loaded = size_and_digest(storage.loadBlob(oid, tid))
    except POSKeyError:
        found.missing.append(name)
        if is_reachable:
            found.missing_reachable.append(name)
        return
    found.blobs += 1
    found.bytes += loaded[0]
    if key not in digests:
        found.unknown.append(name)
    elif digests[key] != loaded:
        found.different.append(f"{name}: {loaded} instead of {digests[key]}")


def _blob_records(storage: Any) -> Iterator[tuple[bytes, bytes]]:
    """Each revision of a blob that ZODB can load."""
    for transaction in storage.iterator():
        for oid in sorted({record.oid for record in transaction}):
            try:
                data = storage.loadSerial(oid, transaction.tid)
            except POSKeyError:
                # Undone, or dropped from the index by a pack.
                continue
            if is_blob_record(data):
                yield oid, transaction.tid


def _reachable(storage: Any) -> Iterator[tuple[bytes, bytes]]:
    """The current revisions of all blobs to which the root leads."""
    seen, waiting = {z64}, [z64]
    while waiting:
        oid = waiting.pop()
        try:
            data, tid = storage.load(oid)
        except POSKeyError:
            continue
        if is_blob_record(data):
            yield oid, tid
        new = set(referencesf(data)) - seen
        seen |= new
        waiting.extend(new)


def _digests(blobs: str | None, journal: str | None) -> dict[Key, tuple[int, str]]:
    found: dict[Key, tuple[int, str]] = {}
    if blobs is not None:
        found |= {key: size_and_digest(path) for key, path in files(blobs).items()}
    if journal is not None and os.path.exists(journal):
        for line in Path(journal).read_text().splitlines():
            oid, tid, size, digest = line.split()
            found[oid, tid] = int(size), digest
    return found


def files(blobs: str) -> dict[Key, str]:
    """The blob files in a blob directory of either layout, as ZODB finds them."""
    helper = FilesystemHelper(blobs)
    found = {}
    for oid, directory in helper.listOIDs():
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            _, tid = helper.splitBlobFilename(path)
            if tid is not None:
                found[oid.hex(), tid.hex()] = path
    return found


def link_tree(source: str, to: str) -> None:
    """Copies a blob directory, with hard links to its files if that is possible."""
    ignored = shutil.ignore_patterns(".fssync", "tmp")
    shutil.copytree(source, to, copy_function=_link_or_copy, ignore=ignored)


def _link_or_copy(source: str, to: str) -> None:
    try:
        os.link(source, to)
    except OSError:
        shutil.copyfile(source, to)

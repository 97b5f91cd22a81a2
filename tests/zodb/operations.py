"""Random operations on a Store, chosen by the store's random numbers."""

from collections import Counter

from ZODB.FileStorage.fspack import PackError

from store import Store

WEIGHTS = {
    "commit": 45,
    "commit_big": 4,
    "vote_abort": 15,
    "vote_finish": 12,
    "undo": 15,
    "empty": 5,
    "pack": 2,
}
BLOB_WEIGHTS = {
    "blobs_create": 25,
    "blobs_create_big": 4,
    "blobs_change": 20,
    "blobs_delete": 8,
    "blobs_vote_abort": 8,
    "blobs_drop": 3,
    "undo": 10,
    "undo_two": 4,
    "pack": 4,
}
BLOBS = (1, 4)
BIG_BYTES = (20_000, 300_000)
SMALL_BYTES = (20, 2_000)
OBJECTS = (1, 12)
PACK_KEEPS_MAX = 20
USERS = ("", "/site admin", "/site/acl_users editor", "Zoë")


class Operations:
    """Chooses an operation and executes it."""

    def __init__(self, store: Store, pack: bool) -> None:
        self._store = store
        self._random = store.random
        weights = Counter(WEIGHTS)
        if store.has_blobs:
            weights.update(BLOB_WEIGHTS)
        self._names = [name for name in weights if pack or name != "pack"]
        self._weights = [weights[name] for name in self._names]

    def step(self) -> str:
        """Executes one operation and returns its name, or one for a refusal by ZODB.

        An operation finishes at most one transaction.
        """
        name = self._random.choices(self._names, self._weights)[0]
        if name in ("undo", "undo_two"):
            count = 2 if name == "undo_two" else 1
            return name if self._store.undo_some(count) else "undo_refused"
        if name == "pack":
            return self._pack()
        if name == "blobs_drop":
            self._store.drop(**self._blobs(name))
        else:
            self._write(name)
        return name

    def _pack(self) -> str:
        """Packs to a recent transaction, if ZODB can.

        Without garbage collection, ZODB drops a record to which an undo after the pack time
        points back. It then fails, and leaves the file as it was.
        """
        try:
            packed = self._store.pack(keep=self._random.randint(0, PACK_KEEPS_MAX))
        except (PackError, AssertionError):
            return "pack_refused"
        return "pack" if packed else "pack_redundant"

    def _write(self, name: str) -> None:
        self._store.vote(
            objects=self._objects(name),
            size=self._random.randint(
                *(BIG_BYTES if name == "commit_big" else SMALL_BYTES)
            ),
            user=self._random.choice(USERS),
            description=f"{name} {self._random.randrange(1000)}",
            extension={"step": name} if self._random.random() < 0.2 else {},
            **self._blobs(name),
        )
        if name.endswith("vote_abort"):
            self._store.abort()
        else:
            self._store.finish()

    def _objects(self, name: str) -> int:
        if name == "empty" or name.startswith("blobs_"):
            return 0
        return 1 if name == "commit_big" else self._random.randint(*OBJECTS)

    def _blobs(self, name: str) -> dict[str, int]:
        if not name.startswith("blobs_"):
            return {}
        what = {"blobs_change": "changes", "blobs_delete": "deletions"}.get(name, "blobs")
        sizes = BIG_BYTES if name == "blobs_create_big" else (0, 2_000)
        return {
            what: self._random.randint(*BLOBS),
            "blob_size": self._random.randint(*sizes),
        }

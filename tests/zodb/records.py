"""The pickles of ZODB data records: a class, then a state with references.

All objects are PersistentMappings, so that the real ZODB.DB can load them and a pack can
follow their references.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Any, Iterable, Mapping

from persistent.mapping import PersistentMapping
from ZODB._compat import PersistentPickler, _protocol
from ZODB.utils import p64


@dataclass(frozen=True)
class Reference:
    """Represents another object in a state, by its oid."""

    oid: bytes


def _persistent_id(value: Any) -> tuple[bytes, type] | None:
    return (value.oid, PersistentMapping) if isinstance(value, Reference) else None


def record(klass: type, state: Any) -> bytes:
    """One data record, as ZODB's ObjectWriter would write it."""
    out = BytesIO()
    pickler = PersistentPickler(_persistent_id, out, _protocol)
    pickler.dump(klass)
    pickler.clear_memo()
    pickler.dump(state)
    return out.getvalue()


def mapping(items: Mapping[str, Any]) -> bytes:
    """A PersistentMapping with `items`."""
    return record(PersistentMapping, {"data": dict(items)})


def root(oids: Iterable[bytes]) -> bytes:
    """A root mapping that refers to `oids`."""
    return mapping({oid.hex(): Reference(oid) for oid in oids})


def oid(number: int) -> bytes:
    """The oid that ZODB assigns to the object with this number."""
    return p64(number)

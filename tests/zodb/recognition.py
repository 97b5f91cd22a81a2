"""Python's view of the start of a data record: whether it is one of a blob."""

import pickle
import pickletools
import resource
from io import BytesIO
from typing import Any

from ZODB.blob import is_blob_record

# fssync looks at this many bytes.
START_LEN = 64

MEMORY = 256 << 20

_WITHOUT_VALUE = {"PROTO", "FRAME", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINSTRING", "BINSTRING"}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return (module, name)


def limit_memory() -> None:
    """Makes Python give up a pickle with a large index in its memo, which is an array."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def describe(record: bytes) -> dict[str, bool] | None:
    """`zodb`: whether ZODB takes the record for a blob. `python`: whether the first pickle is
    the class of blobs according to Python, which reads newer protocols than ZODB. `usual`:
    whether that pickle is written as a pickler writes a class, and is short enough.

    None if the pickle needs too much memory.
    """
    opcodes = _opcodes(record)
    try:
        return {
            "zodb": is_blob_record(record),
            "python": _value(record, opcodes) == ("ZODB.blob", "Blob"),
            "usual": _is_usual(record, opcodes),
        }
    except MemoryError:
        return None


def _opcodes(record: bytes) -> list[tuple[Any, Any, int]]:
    """The opcodes of the first pickle with their arguments and positions."""
    try:
        return list(pickletools.genops(BytesIO(record)))
    except Exception:
        return []


def _value(record: bytes, opcodes: list[tuple[Any, Any, int]]) -> Any:
    # The lengths of frames only help to read ahead, and fssync does not check them.
    unframed = bytearray(record)
    for opcode, _, position in reversed(opcodes):
        if opcode.name == "FRAME":
            del unframed[position : position + 9]
    try:
        return _Unpickler(BytesIO(bytes(unframed))).load()
    except MemoryError:
        raise
    except Exception:
        return None


def _is_usual(record: bytes, opcodes: list[tuple[Any, Any, int]]) -> bool:
    values = [opcode.name for opcode, _, _ in opcodes if opcode.name not in _WITHOUT_VALUE]
    match values:
        case ["GLOBAL", "STOP"]:
            pass
        case [module, name, "STACK_GLOBAL", "STOP"] if {module, name} <= _STRINGS:
            pass
        case _:
            return False
    # `int` accepts more than digits.
    puts = [
        record[position + 1 :].split(b"\n")[0]
        for opcode, _, position in opcodes
        if opcode.name == "PUT"
    ]
    return opcodes[-1][2] < START_LEN and all(
        put.isdigit() for put in puts
    )

"""Reads pickles that hold data only: dicts, lists, tuples, sets, text, bytes, numbers, None. Nothing is executed.

A pickle can name any function and have it called while it is read. Annotation files come from mirrors of dead
servers, so every name is refused here, and with it every call.
Source: the pickle opcodes of CPython (Lib/pickletools.py), protocols 0 to 5.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, NoReturn

from samtok_data.errors import SetupError

# What the C unpickler raises on bytes that are cut or are no pickle.
_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
)


class _DataUnpickler(pickle.Unpickler):  # noqa: S301 - nothing can be named, so nothing can run
    """Refuses every name and every outside object."""

    def __init__(self, data: bytes, label: str, encoding: str) -> None:
        super().__init__(io.BytesIO(data), fix_imports=False, encoding=encoding)
        self.label = label

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise SetupError(
            f"{self.label}: the pickle names {module_name}.{global_name}, which is refused: it would be called while "
            "the file is read, and annotation files hold lists, dicts, text and numbers only; take the file from "
            "another source"
        )

    def persistent_load(self, pid: Any, /) -> NoReturn:
        raise SetupError(
            f"{self.label}: the pickle refers to an object outside itself, which is refused: annotation files hold "
            "lists, dicts, text and numbers only; take the file from another source"
        )


def loads(data: bytes, label: str) -> Any:
    """The value of a pickle of plain data, protocol 0 to 5.

    Byte strings of Python 2 become text: UTF-8 if all of the file's are valid UTF-8, else Latin-1.

    Args:
        data: the whole file.
        label: the file's name for messages.

    Raises:
        SetupError: the pickle names a class, a function or an outside object; or it is cut or no pickle at all.
    """
    try:
        try:
            return _DataUnpickler(data, label, "utf-8").load()
        except UnicodeDecodeError:
            return _DataUnpickler(data, label, "latin-1").load()
    except _BROKEN as error:
        raise SetupError(
            f"{label}: no complete pickle ({type(error).__name__}: {error}); the file of {len(data):,} bytes is cut "
            "or of another format: fetch it again"
        ) from error

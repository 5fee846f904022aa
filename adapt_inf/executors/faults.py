"""What a process elsewhere could not do: as JSON on its way here, and here as the error that it would have been."""

from __future__ import annotations

import traceback
from typing import Any

from adapt_inf.errors import AdaptInfError, StageInputError

_KINDS: dict[str, type[Exception]] = {"mend": AdaptInfError, "system": OSError, "other": RuntimeError}
_SHARED = "The project's folder must be on a file system that all of them have at the same place."


def fault_of(error: Exception, where: str) -> dict[str, Any]:
    """JSON-able.

    Args:
        error: that was caught.
        where: the process, for those errors that do not say what to mend, and those that are perhaps of its node alone.
    """
    if isinstance(error, StageInputError):
        return {"kind": "mend", "told": [f"{where}: {error.message}", f"{_SHARED} If it is: {error.mend}"]}
    if isinstance(error, AdaptInfError):
        return {"kind": "mend", "told": [error.message, error.mend]}
    if isinstance(error, FileNotFoundError):
        # Arrow and safetensors name the file in their text alone.
        what = error.filename or f"a file: {error.strerror or error}"
        return {"kind": "mend", "told": [f"{where} does not see {what}.", _SHARED]}
    if isinstance(error, OSError) and error.errno is not None:
        return {"kind": "system", "told": [error.errno, f"{error.strerror} ({where})", error.filename]}
    text = "".join(traceback.format_exception(error))
    return {"kind": "other", "told": [f"{where}:\n{text}"]}


def error_of(fault: dict[str, Any]) -> Exception:
    """What `fault_of` was given; a RuntimeError with the traceback where it is of no kind that is known here."""
    return _KINDS[fault["kind"]](*fault["told"])

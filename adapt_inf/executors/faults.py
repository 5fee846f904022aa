"""What a process elsewhere could not do: as JSON on its way here, and here as the error that it would have been."""

from __future__ import annotations

import traceback
from typing import Any

from adapt_inf.errors import AdaptInfError

_KINDS: dict[str, type[Exception]] = {"mend": AdaptInfError, "system": OSError, "other": RuntimeError}


def fault_of(error: Exception, where: str) -> dict[str, Any]:
    """JSON-able.

    Args:
        error: that was caught.
        where: the process, for those errors that do not say what to mend.
    """
    if isinstance(error, AdaptInfError):
        return {"kind": "mend", "told": [error.message, error.mend]}
    if isinstance(error, FileNotFoundError):
        mend = "The project's folder must be on a file system that all of them have at the same place."
        return {"kind": "mend", "told": [f"{where} does not see {error.filename}.", mend]}
    if isinstance(error, OSError) and error.errno is not None:
        return {"kind": "system", "told": [error.errno, f"{error.strerror} ({where})", error.filename]}
    text = "".join(traceback.format_exception(error))
    return {"kind": "other", "told": [f"{where}:\n{text}"]}


def error_of(fault: dict[str, Any]) -> Exception:
    """What `fault_of` was given; a RuntimeError with the traceback where it is of no kind that is known here."""
    return _KINDS[fault["kind"]](*fault["told"])

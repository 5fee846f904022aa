"""Records of a split, one at a time: JSON lists, JSON lines and Parquet, never a whole file in memory.

A record that cannot be read is yielded as the `BadSample` that says why, so the rest goes on; a file after whose fault
nothing can be trusted raises. A record of text has a largest size, or one line without an end would take all memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from adapt_inf.data.samples import BadSample

SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet")
_LONGEST = 1 << 24  # bytes of a line, characters of an element of a list: pictures are not in the text
_TOO_LONG = f"longer than {_LONGEST >> 20} MB"
_CHUNK = 1 << 20  # characters of a JSON list read at once
_PARQUET_ROWS = 32  # pictures of this many rows are in memory at once


class UnreadableFile(Exception):  # noqa: N818 - caught and turned into a DropError by whoever knows the drop
    """A split's file is not what its name says; `problem` completes the sentence "<file> ..."."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


def read_records(file: Path) -> Iterator[tuple[str, dict[str, Any] | BadSample]]:
    """Yield each record of a file with its place: `:<line>` of JSON lines, `#<index from 0>` of the others.

    Raises:
        UnreadableFile: the file is no JSON list, no Parquet, or breaks off.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        values = _parquet_records(file)
    elif suffix == ".json":
        values = _json_records(file)
    else:
        yield from _json_lines(file)
        return
    for index, value in enumerate(values):
        yield f"#{index}", _record(value)


def count_records(file: Path) -> int:
    """How many records `read_records` yields; reads text files once, of Parquet only the footer."""
    if file.suffix.lower() == ".parquet":
        with _open_parquet(file) as parquet:
            return int(parquet.metadata.num_rows)
    if file.suffix.lower() == ".json":
        return sum(1 for _ in _json_records(file))
    with open(file, "rb") as text:
        return sum(1 for _ in _lines(text))


def _record(value: Any) -> dict[str, Any] | BadSample:
    if isinstance(value, dict | BadSample):
        return value
    return BadSample("record", f"the record is no object but {type(value).__name__}")


class _Decoder(json.JSONDecoder):
    """JSON as its standard has it: NaN and Infinity, which Python takes, are noted in `odd`."""

    def __init__(self) -> None:
        super().__init__(parse_constant=self._note)
        self.odd: list[str] = []

    def _note(self, name: str) -> None:
        self.odd.append(name)

    def checked(self, value: Any) -> Any:
        """`value` as just decoded, or what is odd about it."""
        return BadSample("record", f"it holds {self.odd[0]}, which is no JSON") if self.odd else value


def _json_lines(file: Path) -> Iterator[tuple[str, dict[str, Any] | BadSample]]:
    decoder = _Decoder()
    with open(file, "rb") as text:
        for number, line in _lines(text):
            decoder.odd = []
            try:
                if line is None:
                    raise ValueError(f"it is {_TOO_LONG}")
                value = decoder.decode(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                yield f":{number}", _record(decoder.checked(value))
            except (ValueError, RecursionError) as error:
                yield f":{number}", BadSample("record", f"the line is no JSON ({_first_line(error)})")


def _lines(text: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """The lines that are not blank, with their numbers; None for one that is too long, which is passed over."""
    number = 0
    while line := text.readline(_LONGEST + 1):
        number += 1
        if len(line) <= _LONGEST:
            if line.strip():
                yield number, line
            continue
        while not line.endswith(b"\n") and (line := text.readline(_CHUNK)):
            pass
        yield number, None


def _json_records(file: Path) -> Iterator[Any]:
    with open(file, encoding="utf-8-sig") as text:
        try:
            yield from _JsonList(text)
        except UnicodeDecodeError:
            raise UnreadableFile("is no UTF-8 text") from None


class _JsonList:
    """The elements of a JSON list, decoded from a window that moves over the text."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._window = ""
        self._at = 0
        self._ended = False
        self._decoder = _Decoder()

    def __iter__(self) -> Iterator[Any]:
        if self._next() != "[":
            raise UnreadableFile("is no JSON list of samples")
        self._at += 1
        if self._next() == "]":
            self._at += 1
        else:
            while True:
                yield self._element()
                separator = self._next()
                self._at += 1
                if separator == "]":
                    break
                if separator != ",":
                    raise UnreadableFile("is no JSON list: it breaks off" if not separator else "is no valid JSON list")
        if self._next():
            raise UnreadableFile("is no JSON list: something follows it")

    def _next(self) -> str:
        """The next character that is no white space, not taken; empty at the end."""
        while True:
            while self._at < len(self._window) and self._window[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._window):
                return self._window[self._at]
            if not self._read(_CHUNK):
                return ""

    def _element(self) -> Any:
        self._next()
        while True:
            fault = ""
            self._decoder.odd = []
            try:
                value, end = self._decoder.raw_decode(self._window, self._at)
            except (ValueError, RecursionError) as error:
                fault = _first_line(error)
            else:
                # At the very end of the window a number may go on in the next chunk.
                if end < len(self._window) or self._ended:
                    self._at = end
                    return self._decoder.checked(value)
            if len(self._window) - self._at > _LONGEST:
                raise UnreadableFile(f"is no valid JSON list, or holds a sample {_TOO_LONG}")
            # Doubling the window keeps the repeated decoding of a long element linear.
            if not self._read(max(_CHUNK, len(self._window) - self._at)):
                if fault:
                    raise UnreadableFile(f"is no valid JSON list ({fault})")
                self._ended = True

    def _read(self, size: int) -> bool:
        more = self._text.read(size)
        self._window = self._window[self._at :] + more
        self._at = 0
        self._ended = not more
        return bool(more)


def _open_parquet(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(f"is no Parquet file ({_first_line(error)})") from None


def _parquet_records(file: Path) -> Iterator[Any]:
    with _open_parquet(file) as parquet:
        batches = parquet.iter_batches(batch_size=_PARQUET_ROWS)
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                raise UnreadableFile(f"is a broken Parquet file ({_first_line(error)})") from None
            if batch is None:
                return
            for row in range(batch.num_rows):
                try:
                    yield batch.slice(row, 1).to_pylist()[0]
                except (ValueError, OverflowError) as error:  # text that is no UTF-8, a date out of range
                    yield BadSample("record", f"the row cannot be read ({_first_line(error)})")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]

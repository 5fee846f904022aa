"""Containers: every record comes out once and in order, a bad one as its reason, a broken file as an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapt_inf.data import records
from adapt_inf.data.records import UnreadableFile, count_records, read_records
from adapt_inf.data.samples import BadSample

same_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=80, deadline=None
)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
plain = st.none() | st.booleans() | numbers | st.text(max_size=12)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))
objects = st.dictionaries(st.text(max_size=5), values, max_size=4)


def read(file: Path) -> list[Any]:
    return [record for _, record in read_records(file)]


def unreadable(file: Path) -> str:
    with pytest.raises(UnreadableFile) as caught:
        read(file)
    return caught.value.problem


@same_folder
@given(
    rows=st.lists(objects, max_size=6), indent=st.sampled_from([None, 2]), ascii=st.booleans(), chunk=st.integers(1, 9)
)
def test_json_lists_come_back_whatever_the_window(
    tmp_path: Path, rows: list[dict[str, Any]], indent: int | None, ascii: bool, chunk: int
) -> None:
    file = tmp_path / "x.json"
    # Half a surrogate pair is JSON only when it is escaped.
    ascii = ascii or any("\\ud" in json.dumps(row) for row in rows)
    file.write_text(json.dumps(rows, indent=indent, ensure_ascii=ascii), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_CHUNK", chunk)
        assert read(file) == rows
        assert count_records(file) == len(rows)


@same_folder
@given(rows=st.lists(objects, max_size=6), gap=st.sampled_from(["\n", "\n\n", "\r\n"]))
def test_json_lines_come_back(tmp_path: Path, rows: list[dict[str, Any]], gap: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes("".join(json.dumps(row) + gap for row in rows).encode())
    assert read(file) == rows
    assert count_records(file) == len(rows)


@same_folder
@given(names=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=80))
def test_parquet_rows_come_back(tmp_path: Path, names: list[str]) -> None:
    rows = [{"id": name, "images": [{"bytes": name.encode(), "path": None}]} for name in names]
    schema = pa.schema(
        [("id", pa.string()), ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())])))]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "x.parquet", row_group_size=7)
    assert read(tmp_path / "x.parquet") == rows
    assert count_records(tmp_path / "x.parquet") == len(rows)


def test_places_name_line_or_index(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    (tmp_path / "x.json").write_text('[{"a": 1}, {"a": 2}]')
    assert [place for place, _ in read_records(tmp_path / "x.jsonl")] == [":1", ":3"]
    assert [place for place, _ in read_records(tmp_path / "x.json")] == ["#0", "#1"]


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    for name, text in (("x.json", '[{"a": 1}]'), ("x.jsonl", '{"a": 1}')):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert read(tmp_path / name) == [{"a": 1}]


@pytest.mark.parametrize("line", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b"3", b'"text"'])
def test_a_bad_line_is_set_aside_and_the_rest_goes_on(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    first, bad, last = read(tmp_path / "x.jsonl")
    assert (first, last) == ({"a": 1}, {"a": 2})
    assert isinstance(bad, BadSample)
    assert bad.kind == "record"


def test_an_element_that_is_no_object_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('[{"a": 1}, 12, [], {"a": 2}]')
    outcomes = read(tmp_path / "x.json")
    assert [isinstance(outcome, BadSample) for outcome in outcomes] == [False, True, True, False]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no JSON list"),
        ('{"data": []}', "no JSON list"),
        ("[", "no valid JSON list"),
        ('[{"a": 1}', "breaks off"),
        ('[{"a": 1},', "no valid JSON list"),
        ('[{"a": 1} {"a": 2}]', "no valid JSON list"),
        ('[{"a": 1},]', "no valid JSON list"),
        ('[{"a": 1}] x', "something follows"),
        ("[" * 100_000, "no valid JSON list"),
    ],
)
def test_a_broken_json_list_is_an_error(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "x.json").write_text(text)
    assert problem in unreadable(tmp_path / "x.json")


def test_text_in_another_encoding_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'[{"a": "\xff"}]')
    assert "UTF-8" in unreadable(tmp_path / "x.json")


def test_what_is_no_parquet_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 or not")
    assert "no Parquet" in unreadable(tmp_path / "x.parquet")


def test_damage_inside_parquet_is_an_error_or_a_reject_never_a_crash(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": [f"name {n}" for n in range(200)]}), file, compression="zstd", use_dictionary=False)
    whole = file.read_bytes()
    for at in range(4, len(whole) - 8, 7):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            outcomes = read(file)
        except UnreadableFile:
            continue
        assert all(isinstance(outcome, dict | BadSample) for outcome in outcomes)


def test_a_row_that_is_no_text_is_set_aside(tmp_path: Path) -> None:
    broken = pa.array([b"good", b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"id": broken}), tmp_path / "x.parquet")
    good, bad = read(tmp_path / "x.parquet")
    assert good == {"id": "good"}
    assert isinstance(bad, BadSample)

"""Parquet both ways: types where every row has one shape, JSON text elsewhere, and nothing that was not there."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from understudy.formats import BadRow, read_rows, write_rows

from .strategies import json_values, names


def written(path: Path, rows: list[dict[str, Any]]) -> pa.Schema:
    write_rows(path, rows)
    return pq.read_schema(path)


def values(path: Path) -> list[Any]:
    return [row.value for row in read_rows(path)]


def test_rows_of_one_shape_get_typed_columns_that_others_can_read(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"{i}"}], "reward": i / 2, "ok": i > 1, "n": i} for i in range(3)]
    schema = written(tmp_path / "a.parquet", rows)
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    assert schema.field("messages").type == pa.list_(message)
    assert [schema.field(name).type for name in ("reward", "ok", "n")] == [pa.float64(), pa.bool_(), pa.int64()]
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == rows


@pytest.mark.parametrize(
    "column",
    [
        [[{"role": "user"}], [{"role": "assistant", "tool_calls": []}]],
        [[{"content": "text"}], [{"content": ["parts"]}]],
        [{"arguments": {"a": 1}}, {"arguments": {"b": 1}}],
        [{"a": None}, {"a": None}],
        [{}, {}],
        [[1], [1.5]],
        [True, 1],
        ["a", 1],
        [2**70, 1],
        [2**60, 1.5],
        ["\ud800", "b"],
        [{"a": float("inf")}, {"b": 1}],
        [{"\ud800": 1}, {"\ud800": 2}],
    ],
)
def test_values_of_several_shapes_are_kept_exactly_as_json_text(column: list[Any], tmp_path: Path) -> None:
    rows = [{"x": value} for value in column]
    schema = written(tmp_path / "a.parquet", rows)
    assert isinstance(schema.field("x").type, pa.JsonType)
    assert repr(values(tmp_path / "a.parquet")) == repr(rows)


def test_whole_numbers_beside_fractions_in_a_column_are_fractions(tmp_path: Path) -> None:
    assert written(tmp_path / "a.parquet", [{"r": 1}, {"r": 0.5}, {"r": None}, {}]).field("r").type == pa.float64()
    assert values(tmp_path / "a.parquet") == [{"r": 1.0}, {"r": 0.5}, {}, {}]


def test_columns_that_begin_late_are_written(tmp_path: Path) -> None:
    rows = [{"a": i} for i in range(3000)] + [{"b": {"c": [i]}} for i in range(3000)]
    write_rows(tmp_path / "a.parquet", rows)
    assert values(tmp_path / "a.parquet") == rows


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.dictionaries(names, json_values.filter(lambda one: one is not None), min_size=1), max_size=5))
def test_any_rows_come_back_exactly(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("rows") / "a.parquet"
    write_rows(file, rows)
    found = values(file)
    assert [set(row) for row in found] == [set(row) for row in rows]
    for a, b in zip(found, rows, strict=True):
        for key in a:
            same_number = not isinstance(b[key], bool) and isinstance(b[key], int) and a[key] == b[key]
            assert same_number or repr(a[key]) == repr(b[key])


def test_a_null_of_a_struct_is_an_absent_key(tmp_path: Path) -> None:
    call = pa.struct([("name", pa.string()), ("arguments", pa.struct([("city", pa.string()), ("id", pa.int64())]))])
    column = pa.array(
        [[{"name": "f", "arguments": {"city": "Bern"}}], [{"name": "g", "arguments": {"id": 1}}]], pa.list_(call)
    )
    pq.write_table(pa.table({"calls": column}), tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet") == [
        {"calls": [{"name": "f", "arguments": {"city": "Bern"}}]},
        {"calls": [{"name": "g", "arguments": {"id": 1}}]},
    ]


def test_other_types_become_plain_json_values(tmp_path: Path) -> None:
    table = pa.table(
        {
            "time": pa.array([datetime.datetime(2024, 5, 1, 12)], pa.timestamp("ms")),
            "day": pa.array([datetime.date(2024, 5, 1)]),
            "image": pa.array(
                [{"bytes": b"ABC", "path": None}], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            ),
            "scores": pa.array([[(0, 0.5), (2, None)]], pa.map_(pa.int64(), pa.float64())),
            "price": pa.array([decimal.Decimal("1.50")]),
            "word": pa.array(["w"]).dictionary_encode(),
            "large": pa.array([["x"]], pa.large_list(pa.large_string())),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet") == [
        {
            "time": "2024-05-01T12:00:00",
            "day": "2024-05-01",
            "image": {"bytes": "QUJD"},
            "scores": {"0": 0.5, "2": None},
            "price": 1.5,
            "word": "w",
            "large": ["x"],
        }
    ]


def test_a_bad_json_text_costs_its_row_only(tmp_path: Path) -> None:
    texts = pa.array(['{"a": 1}', '{"a": 1, "a": 2}', '{"a": 3}'], pa.string())
    pq.write_table(pa.table({"x": pa.ExtensionArray.from_storage(pa.json_(), texts)}), tmp_path / "a.parquet")
    bad: list[BadRow] = []
    assert [row.value["x"]["a"] for row in read_rows(tmp_path / "a.parquet", on_bad=bad.append)] == [1, 3]
    assert (bad[0].error.row, bad[0].error.field) == (2, "x")

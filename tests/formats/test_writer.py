"""Files are written whole or not at all."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from understudy.errors import FormatError
from understudy.formats import read_rows, write_rows
from understudy.formats.writer import WRITABLE_SUFFIXES

ROWS: list[dict[str, Any]] = [
    {"id": str(i), "n": i, "messages": [{"role": "user", "content": "é\u2028\ud800" if i % 2 else None}]}
    for i in range(30)
]


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
def test_rows_come_back_from_every_kind_of_file(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"rows{suffix}"
    assert write_rows(file, iter(ROWS)) == len(ROWS)
    assert [row.value for row in read_rows(file)] == ROWS
    assert [path.name for path in tmp_path.iterdir()] == [file.name], "nothing else is left behind"


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
def test_no_rows_make_a_file_without_rows(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"rows{suffix}"
    write_rows(file, [])
    assert list(read_rows(file)) == []


@pytest.mark.parametrize("suffix", [".jsonl", ".json.gz", ".jsonl.zst", ".parquet"])
def test_a_fault_while_writing_leaves_the_old_file_and_nothing_else(suffix: str, tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield from ROWS
        raise FormatError("a bad row")

    file = tmp_path / f"rows{suffix}"
    write_rows(file, [{"old": 1}])
    with pytest.raises(FormatError, match="a bad row"):
        write_rows(file, rows())
    assert [row.value for row in read_rows(file)] == [{"old": 1}]
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".json.zst", ".parquet"])
def test_equal_rows_make_equal_files(suffix: str, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for file in files:
        write_rows(file, ROWS)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_text_that_other_programs_would_split_at_is_escaped(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_rows(file, [{"a": "1\u00852\u20283\u2029"}])
    assert len(file.read_text(encoding="utf-8").splitlines()) == 1
    assert json.loads(file.read_text(encoding="utf-8")) == {"a": "1\u00852\u20283\u2029"}


def test_standard_output_gets_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", out)
    write_rows("-", [{"a": 1}, {"b": 2}])
    assert out.buffer.getvalue() == b'{"a": 1}\n{"b": 2}\n'  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "said"), [("a.eval", "'.eval'"), ("a.jsnl", "Did you mean '.jsonl'"), ("a", "name it one of")]
)
def test_an_unknown_kind_is_refused_before_anything_is_read(name: str, said: str, tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        raise AssertionError("no row may be read")
        yield {}

    with pytest.raises(FormatError) as caught:
        write_rows(tmp_path / name, rows())
    assert said in str(caught.value)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="the folder does not exist"):
        write_rows(tmp_path / "no" / "a.jsonl", [])


def test_a_row_that_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be written as JSON"):
        write_rows(tmp_path / "a.jsonl", [{"a": {1, 2}}])


def test_a_column_that_parquet_cannot_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot name a column"):
        write_rows(tmp_path / "a.parquet", [{"\ud800": 1}])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_what_a_killed_writer_has_left_goes_when_its_target_is_written_again(suffix: str, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    name = f"rows{suffix}"
    left = [f".{name}.{dead.pid}.tmp", f".{name}.{dead.pid}.tmp.jsonl"]
    others = [
        f".{name}.{os.getppid()}.tmp",  # is being written
        f".other.{name}.{dead.pid}.tmp",
        f".rowsx{suffix}.{dead.pid}.tmp",
        f".{name}.0.tmp",
        f".{name}.k3x_1.tmp",
        f"{name}.{dead.pid}.tmp",
    ]
    for file in (*left, *others):
        (tmp_path / file).touch()
    write_rows(tmp_path / name, ROWS)
    assert {path.name for path in tmp_path.iterdir()} == {name, *others}

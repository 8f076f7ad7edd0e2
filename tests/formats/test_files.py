"""Which files a source names, and what each kind and each trap of real files gives."""

from __future__ import annotations

import gc
import gzip
import io
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from understudy.errors import FormatError
from understudy.formats import BadRow, list_files, read_rows, write_rows

from .open_files import open_files

ROWS = [{"a": 1}, {"b": {"c": [None, True, 2.5, "é"]}}, {"d": "x" * 1000}]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


def values(source: Any, **options: Any) -> list[Any]:
    return [row.value for row in read_rows(source, **options)]


def reasons(source: Any) -> list[str]:
    bad: list[BadRow] = []
    list(read_rows(source, on_bad=bad.append))
    return [str(one.error) for one in bad]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".jsonl", LINES),
        (".ndjson", LINES),
        (".json", json.dumps(ROWS).encode()),
        (".json", json.dumps(ROWS, indent=2).encode()),
        (".json", LINES),
        (".json", b"\n\n".join(json.dumps(row, indent=1).encode() for row in ROWS)),
    ],
)
def test_every_shape_of_json_gives_the_same_rows(suffix: str, text: bytes, packed: str, folder: Path) -> None:
    (folder / f"rows{suffix}{packed}").write_bytes(PACK[packed](text))
    assert values(f"rows{suffix}{packed}") == ROWS


def test_one_object_in_a_file_is_one_row(folder: Path) -> None:
    Path("one.json").write_text(json.dumps({"a": [1, 2]}, indent=4))
    assert values("one.json") == [{"a": [1, 2]}]


def test_a_file_with_an_unknown_name_is_read_as_json(folder: Path) -> None:
    Path("run.traj").write_text(json.dumps({"a": 1}, indent=4))
    Path("rows.txt").write_bytes(LINES)
    assert values(["run.traj", "rows.txt"]) == [{"a": 1}, *ROWS]


def test_several_gzip_members_and_zstd_frames_are_one_file(folder: Path) -> None:
    for packed in (".gz", ".zst"):
        Path(f"rows.jsonl{packed}").write_bytes(PACK[packed](LINES) + PACK[packed](LINES))
        assert values(f"rows.jsonl{packed}") == ROWS * 2


def test_a_log_of_inspect_gives_its_samples_with_the_header(folder: Path) -> None:
    with zipfile.ZipFile("log.eval", "w") as archive:
        archive.writestr("header.json", '{"eval": {"model": "m"}}')
        archive.writestr("samples/2_epoch_1.json", '{"id": 2}')
        archive.writestr("samples/1_epoch_1.json", '{"id": 1}')
        archive.writestr("summaries.json", "[]")
    header = {"eval": {"model": "m"}}
    assert values("log.eval") == [{"id": 1, "header": header}, {"id": 2, "header": header}]


@pytest.mark.parametrize("packed", PACK)
def test_standard_input_is_read_compressed_or_not(packed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PACK[packed](LINES))))
    rows = list(read_rows("-"))
    assert [row.value for row in rows] == ROWS
    assert rows[0].file == "<stdin>"


def test_a_folder_gives_its_data_files_in_order_and_nothing_else(folder: Path) -> None:
    for name in ("b.jsonl", "sub/a.jsonl.gz", "c.parquet"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    for name in (
        "a_stats.json",
        "b.rejects.jsonl",
        "dataset_info.json",
        ".hidden.jsonl",
        "_temporary.json",
        "README.md",
    ):
        Path(name).touch()
    assert list_files(".") == ["b.jsonl", "c.parquet", "sub/a.jsonl.gz"]


def test_globs_lists_and_paths_name_files(folder: Path) -> None:
    for name in ("a1.jsonl", "a2.jsonl", "b.jsonl"):
        Path(name).touch()
    assert list_files("a*.jsonl") == ["a1.jsonl", "a2.jsonl"]
    assert list_files([Path("b.jsonl"), "a?.jsonl"]) == ["b.jsonl", "a1.jsonl", "a2.jsonl"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: Path) -> None:
    Path("a[1].jsonl").write_bytes(LINES)
    assert values("a[1].jsonl") == ROWS


@pytest.mark.parametrize("source", ["nothing.jsonl", "no*.jsonl", "bad\0name"])
def test_a_source_that_names_no_file_is_refused(source: str, folder: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        list_files(source)


def test_a_folder_without_data_is_refused(folder: Path) -> None:
    with pytest.raises(FormatError, match="holds no data files"):
        list_files(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused_even_when_bad_rows_are_skipped(folder: Path) -> None:
    Path("a.jsonl").write_bytes(LINES)
    Path("a.jsonl").chmod(0)
    with pytest.raises(FormatError, match="cannot read the file"):
        reasons("a.jsonl")


def test_lines_end_at_line_feeds_only(folder: Path) -> None:
    text = "next\u0085line, separator\u2028, paragraph\u2029, form\x0cfeed, \x1c"
    Path("a.jsonl").write_text(json.dumps({"a": text}, ensure_ascii=False) + "\n{}\n", encoding="utf-8")
    assert values("a.jsonl") == [{"a": text}, {}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_byte_order_marks_carriage_returns_and_blank_lines_are_passed_over(name: str, folder: Path) -> None:
    Path(name).write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n   \n{"a": 2}\r\n\n')
    rows = list(read_rows(name))
    assert [row.value for row in rows] == [{"a": 1}, {"a": 2}]
    assert [row.number for row in rows] == [1, 4], "rows are counted as an editor counts lines"


@pytest.mark.parametrize(
    ("text", "number"), [(b'{"a": 1}\n{"b": [1', 2), (b'{"a": 1}\n{"b": "xy', 2), (b'[{"a": 1}, {"b"', 2)]
)
def test_a_row_that_is_cut_off_is_said_to_be(text: bytes, number: int, folder: Path) -> None:
    Path("a.json").write_bytes(text)
    bad: list[BadRow] = []
    assert values("a.json", on_bad=bad.append) == [{"a": 1}]
    assert "cut off" in str(bad[0].error)
    assert bad[0].error.row == 2


def test_a_last_line_without_line_end_is_a_row(folder: Path) -> None:
    Path("a.jsonl").write_bytes(LINES[:-1])
    assert values("a.jsonl") == ROWS


def test_an_array_that_is_cut_between_elements_is_reported(folder: Path) -> None:
    Path("a.json").write_bytes(b'[{"a": 1}, {"a": 2}')
    assert reasons("a.json") == [
        "a.json:3: the array is cut off (mend: the file may be incomplete: fetch or write it again)"
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_key_that_stands_twice_is_refused_by_name(name: str, folder: Path) -> None:
    Path(name).write_bytes(b'{"m": {"role": "user", "x": 1, "role": "assistant"}}\n{"b": 1}')
    assert values(name, on_bad=lambda bad: None) == [{"b": 1}]
    assert "the key 'role' stands twice" in reasons(name)[0]


def test_nan_infinity_exact_integers_and_lone_surrogates_are_kept(folder: Path) -> None:
    Path("a.jsonl").write_bytes(b'{"a": NaN, "b": -Infinity, "c": 123456789012345678901234567890, "d": "\\ud83d"}')
    (row,) = values("a.jsonl")
    assert math.isnan(row["a"])
    assert (row["b"], row["c"], row["d"]) == (-math.inf, 123456789012345678901234567890, "\ud83d")


def test_text_in_another_encoding_is_refused(folder: Path) -> None:
    Path("a.jsonl").write_bytes('{"a": "é"}'.encode("latin-1"))
    Path("b.jsonl").write_bytes('{"a": 1}\n'.encode("utf-16"))
    assert "byte 8 of the row is not UTF-8" in reasons("a.jsonl")[0]
    assert "UTF-16" in reasons("b.jsonl")[0]


def test_a_number_with_too_many_digits_is_refused(folder: Path) -> None:
    Path("a.jsonl").write_bytes(b'{"a": ' + b"9" * 5000 + b"}\n{}")
    assert "a number cannot be read" in reasons("a.jsonl")[0]


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".json.zst"])
def test_a_cut_archive_gives_its_whole_rows_and_one_reason(suffix: str, folder: Path) -> None:
    rows = [{"i": i, "noise": os.urandom(40).hex()} for i in range(12_000)]
    write_rows(f"whole{suffix}", rows)
    data = Path(f"whole{suffix}").read_bytes()
    Path(f"cut{suffix}").write_bytes(data[: len(data) // 2])
    bad: list[BadRow] = []
    found = values(f"cut{suffix}", on_bad=bad.append)
    assert found == rows[: len(found)]
    assert len(found) > 4000
    assert len(bad) == 1
    assert bad[0].error.row == len(found) + 1


def test_a_small_first_read_does_not_change_what_is_found(folder: Path) -> None:
    class Dribble(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self._data = data

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            buffer[:3], self._data, count = self._data[:3].ljust(3), self._data[3:], len(self._data[:3])
            return count

    for text in (LINES, json.dumps(ROWS, indent=1).encode()):
        sys_stdin, sys.stdin = sys.stdin, io.TextIOWrapper(io.BufferedReader(Dribble(text), buffer_size=3))
        try:
            assert values("-") == ROWS
        finally:
            sys.stdin = sys_stdin


def test_elements_longer_than_any_chunk_are_read_whole(folder: Path) -> None:
    rows = [{"a": "x" * 3_000_000}, {"n": 12345}, {"b": '"\\' * 700_000}]
    Path("a.json").write_text(json.dumps([*rows, 17, "s", None]))
    assert values("a.json") == [*rows, 17, "s", None]


def test_memory_does_not_grow_with_the_file(folder: Path) -> None:
    peaks = {}
    for suffix in (".jsonl", ".json"):
        for num_rows in (4000, 16000):
            write_rows(f"{num_rows}{suffix}", ({"a": "x" * 5000} for _ in range(num_rows)))
            program = (
                "import resource, sys\n"
                "from understudy.formats import read_rows\n"
                f"count = sum(1 for _ in read_rows('{num_rows}{suffix}'))\n"
                "print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
            )
            out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
            count, peak = map(int, out.split())
            assert count == num_rows
            peaks[suffix, num_rows] = peak
        assert peaks[suffix, 16000] < peaks[suffix, 4000] * 1.15, "kilobytes, for 20 MB and 80 MB of rows"


def test_a_database_is_told_from_rows(tmp_path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "pool.db") as connection:
        connection.execute("CREATE TABLE rows (x)")
    connection.close()
    gc.disable()  # which would close what is left open
    try:
        with pytest.raises(FormatError, match=r"pool.db:1: the file is a database of SQLite, not rows .*store export"):
            list(read_rows(tmp_path / "pool.db"))
        assert tmp_path / "pool.db" not in open_files()
    finally:
        gc.enable()

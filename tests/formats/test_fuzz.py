"""Readers meet anything, and answer with rows or with our errors: no other exception, no hang, no lost good row."""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import random
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from understudy import registry
from understudy.errors import FormatError, UnderstudyError
from understudy.formats import BadRow, detect, get_format, read_episodes, read_rows, write_rows
from understudy.formats.rows import Row, dump_row
from understudy.types import Episode, message_from_openai, tools_from_openai

from .rows import EXAMPLE_ROWS
from .strategies import json_values

FORMATS = list(registry.TABLES["formats"])
quick = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
HOSTILE = [
    None,
    True,
    -1,
    10**400,
    float("nan"),
    "",
    "[",
    '"{}"',
    "\ud800",
    [],
    [None],
    {},
    {"": None},
    {"9" * 5000: 1},
    [[[]]],
    {"role": 3},
]


def accepts(decode: Callable[[], Any]) -> None:
    """Call a reader that may refuse, but only in our way."""
    with contextlib.suppress(UnderstudyError):
        decode()


@pytest.mark.parametrize("name", FORMATS)
@quick
@given(row=json_values)
def test_any_json_value_is_decoded_or_refused(name: str, row: Any) -> None:
    accepts(lambda: get_format(name).decode(row, id="x"))


@pytest.mark.parametrize("name", FORMATS)
def test_rows_with_any_part_replaced_or_removed_are_decoded_or_refused(name: str) -> None:
    chance = random.Random(0)
    found = get_format(name)
    for row in EXAMPLE_ROWS[name]:
        for path in _paths(row):
            for value in [..., *HOSTILE, chance.choice(EXAMPLE_ROWS[chance.choice(FORMATS)])]:
                broken = _replaced(row, path, value)
                if isinstance(broken, dict):
                    found.match(broken)
                accepts(lambda broken=broken: found.decode(broken, id="x"))


@quick
@given(value=json_values)
def test_any_json_value_as_message_or_tools_is_read_or_refused(value: Any) -> None:
    accepts(lambda: message_from_openai(value))
    accepts(lambda: message_from_openai({"role": "assistant", "content": value, "tool_calls": value}))
    accepts(lambda: message_from_openai({"role": "assistant", "function_call": value, "weight": value}))
    accepts(lambda: tools_from_openai(value))


def _nested(depth: int) -> Any:
    value: Any = "x"
    for level in range(depth):
        value = [{"properties": {"a": value}}, {"content": [value]}][level % 2]
    return value


@pytest.mark.parametrize("name", FORMATS)
def test_deep_nesting_within_a_row_is_decoded_or_refused(name: str) -> None:
    deep = _nested(300)
    for row in EXAMPLE_ROWS[name]:
        for path in _paths(row):
            broken = _replaced(row, path, deep)
            accepts(lambda broken=broken: get_format(name).decode(broken, id="x"))


GOOD = [
    {"messages": [{"role": "user", "content": f"é\u2028 {i}"}, {"role": "assistant", "content": "x" * i}]}
    for i in range(40)
]


def _lines() -> bytes:
    return b"".join(dump_row(row) + b"\n" for row in GOOD)


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_a_broken_line_costs_no_other_line(packed: str, tmp_path: Path) -> None:
    chance = random.Random(1)
    garbage = [
        b"{",
        b"\xff\xfe{}",
        b"[1,2",
        b'{"a":1,"a":2}',
        b"\x00" * 50,
        b"nul",
        b"[" * 5000,
        b'"',
        b"{}}",
        b"1e999999",
        b"x" * 9000,
    ]
    for trial in range(40):
        lines = [dump_row(row) for row in GOOD]
        hit = set(chance.sample(range(len(lines)), 5))
        for i in hit:
            cut = lines[i][: chance.randrange(1, len(lines[i]) - 1)]
            lines[i] = chance.choice([*garbage, cut, cut + chance.randbytes(9).replace(b"\n", b"")])
        data = b"\n".join(lines)
        pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[packed]
        file = tmp_path / f"rows.jsonl{packed}"
        file.write_bytes(pack(data))
        bad: list[BadRow] = []
        good = [row.value for row in read_rows(file, on_bad=bad.append, max_row_bytes=8000)]
        untouched = [row for i, row in enumerate(GOOD) if i not in hit]
        assert [row for row in good if row in GOOD] == untouched, trial
        assert len(good) + len(bad) == len(GOOD)


def test_a_broken_element_of_an_array_costs_no_other_element(tmp_path: Path) -> None:
    chance = random.Random(2)
    garbage = [
        b'{"a":1,"a":2}',
        b"nul",
        b"[" * 5000 + b"]" * 5000,
        b"{oops}",
        b"'x'",
        b"{1:2}",
        b'{"a" 1}',
        b"",
        b'{"a":[}',
        b"1 2",
    ]
    file = tmp_path / "rows.json"
    for _ in range(30):
        elements = [dump_row(row) for row in GOOD]
        hit = set(chance.sample(range(len(elements)), 4))
        for i in hit:
            elements[i] = chance.choice(garbage)
        file.write_bytes(b"[" + b" ,\n".join(elements) + b"]")
        bad: list[BadRow] = []
        good = [row.value for row in read_rows(file, on_bad=bad.append)]
        assert [row for row in good if row in GOOD] == [row for i, row in enumerate(GOOD) if i not in hit]
        assert bad


@pytest.mark.parametrize(
    "suffix", [".json", ".jsonl", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".json.zst", ".parquet", ".eval"]
)
def test_files_with_broken_bytes_or_cut_short_are_read_or_refused(suffix: str, tmp_path: Path) -> None:
    chance = random.Random(1)
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".eval":
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
            for i, row in enumerate(GOOD):
                archive.writestr(f"samples/{i}.json", json.dumps(row))
    else:
        write_rows(whole, GOOD)
    data = whole.read_bytes()
    file = tmp_path / f"broken{suffix}"
    for _ in range(200 if suffix == ".parquet" else 60):
        broken = bytearray(data[: chance.randrange(len(data) + 1)] if chance.random() < 0.4 else data)
        for _ in range(chance.choice([0, 1, 3, 20])):
            if broken:
                broken[chance.randrange(len(broken))] = chance.randrange(256)
        file.write_bytes(bytes(broken))
        accepts(lambda: list(read_rows(file)))
        bad: list[BadRow] = []
        rows = list(read_rows(file, on_bad=bad.append))
        assert all(isinstance(row, Row) for row in rows)
        accepts(lambda: list(read_episodes(file, skip_bad=True)))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".jsonl.zst", ".json.gz"])
def test_rows_before_a_cut_arrive(suffix: str, tmp_path: Path) -> None:
    whole = tmp_path / f"whole{suffix}"
    write_rows(whole, GOOD)
    data = whole.read_bytes()
    file = tmp_path / f"cut{suffix}"
    for end in range(20, len(data), 37):
        file.write_bytes(data[:end])
        bad: list[BadRow] = []
        good = [row.value for row in read_rows(file, on_bad=bad.append)]
        assert good == GOOD[: len(good)]
        assert bad or len(good) == len(GOOD) or suffix == ".jsonl"


@quick
@given(data=st.binary(max_size=300))
def test_any_bytes_on_standard_input_are_read_or_refused(data: bytes) -> None:
    stdin = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(data))
    try:
        accepts(lambda: list(read_episodes("-", "messages")))
    finally:
        sys.stdin = stdin


@quick
@given(text=st.text(st.sampled_from('[]{}",:\\ 1a\n'), max_size=60))
def test_any_text_of_brackets_and_quotes_ends_with_rows_or_bad_rows(text: str, tmp_path_factory) -> None:
    file = tmp_path_factory.mktemp("text") / "rows.json"
    file.write_text(text)
    bad: list[BadRow] = []
    good = list(read_rows(file, on_bad=bad.append))
    try:
        value = json.loads(text)
    except ValueError:
        return
    assert [row.value for row in good] == (value if isinstance(value, list) else [value]) or bad


def test_a_line_over_the_limit_is_refused_without_being_held(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a": "' + b"x" * 3_000_000 + b'"}\n{"b": 1}\n')
    bad: list[BadRow] = []
    assert [row.value for row in read_rows(file, on_bad=bad.append, max_row_bytes=1000)] == [{"b": 1}]
    assert "max_row_bytes (1,000)" in str(bad[0].error)
    assert len(bad[0].raw) <= 64 * 1024


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_nesting_of_a_hundred_thousand_brackets_is_one_bad_row(suffix: str, tmp_path: Path) -> None:
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    file = tmp_path / f"rows{suffix}"
    file.write_bytes(
        b'{"b": 1}\n' + deep + b'\n{"c": 1}' if suffix == ".jsonl" else b'[{"b": 1},' + deep + b',{"c": 1}]'
    )
    bad: list[BadRow] = []
    assert [row.value for row in read_rows(file, on_bad=bad.append)] == [{"b": 1}, {"c": 1}]
    assert [one.error.reason for one in bad] == ["the row is nested too deeply"]


@quick
@given(rows=st.lists(json_values, max_size=3))
def test_detection_answers_or_refuses(rows: list[Any]) -> None:
    accepts(lambda: detect([Row(value, "f", i) for i, value in enumerate(rows)]))


@quick
@given(messages=st.lists(json_values, max_size=2), tools=json_values)
def test_an_episode_is_made_of_any_messages_or_refused(messages: list[Any], tools: Any) -> None:
    accepts(lambda: Episode.from_messages(messages, tools=tools))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [inner for key, item in items for inner in _paths(item, (*path, key))]


def _replaced(row: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return the row with what stands at `path` replaced; ``...`` removes it."""
    if not path:
        return None if value is ... else value
    out = copy.deepcopy(row)
    holder = out
    for key in path[:-1]:
        holder = holder[key]
    if value is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return out


def test_the_refusal_of_a_row_names_file_row_and_field(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(dump_row(GOOD[0]) + b'\n\n{"messages": [{"role": "user", "content": 5}]}\n')
    with pytest.raises(FormatError) as caught:
        list(read_episodes(file))
    assert str(caught.value).startswith(f"{file}:3: messages[0].content: content is text")

"""Which format a source has, and why."""

from __future__ import annotations

import json

import pytest

from understudy.errors import FormatError
from understudy.formats import read_episodes

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
SCORED = CHAT | {"scores": {"1": 0.5}}


def source(tmp_path, *rows: object):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_the_reason_says_what_was_seen(tmp_path) -> None:
    reader = read_episodes(source(tmp_path, CHAT, CHAT))
    assert len(list(reader)) == 2
    assert reader.detection.reason == "messages: 'messages' holds messages in the first 2 rows"


def test_a_bad_row_among_the_first_is_named_by_its_own_fault(tmp_path) -> None:
    path = source(tmp_path, CHAT, {"messages": 7}, CHAT)
    with pytest.raises(FormatError, match=r"rows\.jsonl:2: messages: "):
        list(read_episodes(path))


def test_a_bad_row_among_the_first_is_skipped_where_bad_rows_are(tmp_path) -> None:
    reader = read_episodes(source(tmp_path, {"messages": 7}, 5, CHAT, CHAT), skip_bad=True)
    assert (len(list(reader)), reader.num_rejected) == (2, 2)
    assert reader.detection.reason == "messages: 'messages' holds messages in the first 4 rows but 2"


def test_rows_of_several_formats_are_not_read_as_one(tmp_path) -> None:
    with pytest.raises(FormatError, match="the rows are of several formats: messages, record_data"):
        list(read_episodes(source(tmp_path, CHAT, SCORED), skip_bad=True))


def test_rows_of_no_format_are_shown(tmp_path) -> None:
    with pytest.raises(FormatError, match=r"rows\.jsonl:1: no known format fits: the row is an object with 'foo'"):
        list(read_episodes(source(tmp_path, {"foo": 1}, {"foo": 2})))

"""How far a source has been read."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator

import pytest

from understudy.formats import read_episodes, write_rows


def rows(num: int) -> Iterator[dict]:
    for n in range(num):
        question = {"role": "user", "content": f"question {n * 7919 % 1000} " * 80}
        yield {"messages": [question, {"role": "assistant", "content": str(n) * 50}]}


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".parquet"])
def test_the_fraction_grows_evenly_to_the_end(tmp_path, suffix: str) -> None:
    write_rows(tmp_path / f"rows{suffix}", rows(5000))
    reader = read_episodes(tmp_path / f"rows{suffix}", "messages")
    assert reader.fraction is None
    seen = [reader.fraction for _ in reader]
    assert seen == sorted(seen)
    # A packed file may be so small that one read holds much of it.
    assert 0.25 < seen[2500] < 0.75 or suffix.endswith(("gz", "zst"))
    assert seen[-1] > 0.9


def test_several_files_count_by_their_sizes(tmp_path) -> None:
    write_rows(tmp_path / "a.jsonl", rows(10))
    write_rows(tmp_path / "b.jsonl", rows(30))
    sizes = [(tmp_path / name).stat().st_size for name in ("a.jsonl", "b.jsonl")]
    reader = read_episodes(tmp_path, "messages")
    seen = [reader.fraction for _ in reader]
    assert seen[10] >= sizes[0] / sum(sizes)
    assert seen[9] <= sizes[0] / sum(sizes)


def test_standard_input_has_no_fraction(monkeypatch) -> None:
    line = json.dumps({"messages": [{"role": "user", "content": "hi"}]}) + "\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line.encode())))
    reader = read_episodes("-", "messages")
    assert [reader.fraction for _ in reader] == [None]

"""metrics.jsonl survives kills and resumed runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from understudy.errors import DataError
from understudy.runs import MetricsWriter, read_metrics


def test_rows_are_in_the_file_as_soon_as_they_are_written(tmp_path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    writer.write(1, {"loss": 2.5, "by_source": {"a": 1.0}})
    row = read_metrics(tmp_path / "metrics.jsonl")[0]
    assert row.pop("time").endswith("+00:00")
    assert row == {"step": 1, "loss": 2.5, "by_source": {"a": 1.0}}
    writer.close()


def test_a_killed_process_leaves_every_row_that_it_wrote(tmp_path) -> None:
    script = (
        "import os, signal, sys\n"
        "from understudy.runs import MetricsWriter\n"
        "writer = MetricsWriter(sys.argv[1])\n"
        "for step in range(100): writer.write(step, {'loss': step / 7})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "metrics.jsonl"
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -signal.SIGKILL
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(n, n / 7) for n in range(100)]


def test_numbers_that_json_lacks_become_null(tmp_path) -> None:
    with MetricsWriter(tmp_path / "m.jsonl") as writer:
        writer.write(1, {"perplexity": float("inf"), "inner": {"x": float("nan")}})
    row = json.loads((tmp_path / "m.jsonl").read_text())
    assert row["perplexity"] is None
    assert row["inner"] == {"x": None}


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_cut_last_line_is_left_out_and_mended_before_the_next_row(tmp_path, cut: int) -> None:
    path = tmp_path / "m.jsonl"
    with MetricsWriter(path) as writer:
        writer.write(1, {"loss": 1.0})
        writer.write(2, {"loss": 2.0})
    os.truncate(path, path.stat().st_size - cut)
    assert [row["step"] for row in read_metrics(path)] == [1]
    with MetricsWriter(path) as writer:
        writer.write(2, {"loss": 2.5})
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(1, 1.0), (2, 2.5)]


def test_a_resumed_run_takes_back_the_rows_after_its_checkpoint(tmp_path) -> None:
    path = tmp_path / "m.jsonl"
    with MetricsWriter(path) as writer:
        for step in range(1, 8):
            writer.write(step, {"text": "a\u2028b\r"})
    with MetricsWriter(path, keep_through_step=4) as writer:
        writer.write(5, {})
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3, 4, 5]


def test_a_broken_line_in_the_middle_is_refused_with_its_number(tmp_path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"m\.jsonl:2: not JSON"):
        read_metrics(path)

"""understudy stats"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from tests.cli.commands import ROOT, WEATHER
from understudy.cli.main import main
from understudy.formats import read_episodes


def stats_json(capsys, *arguments: object) -> dict:
    assert main(["stats", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_table_shows_the_figures_of_the_json(capsys) -> None:
    overall = stats_json(capsys, WEATHER)["overall"]
    assert main(["stats", str(WEATHER)]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split("  ")[0]: line for line in lines}
    assert f"{overall['num_characters']:,}" in shown["characters"]
    assert "assistant 15" in shown["messages"]
    assert "get_forecast 7" in shown["tool calls"]
    assert "83.3% of 6" in shown["success"]
    group = next(line.split() for line in lines if line.strip().startswith("planner "))
    assert group[:3] == ["planner", "6", "2.5"]


def test_the_json_agrees_with_counting_the_rows_by_hand(capsys) -> None:
    rows = [json.loads(line) for line in WEATHER.read_text().splitlines()]
    messages = [message for row in rows for message in row["messages"]]
    report = stats_json(capsys, WEATHER)
    overall = report["overall"]
    assert report["num_rows"] == overall["num_episodes"] == len(rows)
    assert overall["num_messages"] == len(messages)
    assert overall["messages_by_role"] == Counter(message["role"] for message in messages)
    assert overall["num_tool_calls"] == sum(len(message.get("tool_calls", [])) for message in messages)
    assert overall["reward"]["total"] == sum(row["reward"] for row in rows)
    assert overall["success"]["num_successes"] == sum(row["success"] for row in rows)
    assert list(report["by"]) == ["environment", "agent"]
    assert report["by"]["environment"]["weather"]["num_episodes"] == 6


def test_dimensions_are_chosen(capsys) -> None:
    by = stats_json(capsys, WEATHER, "--by", "policy", "--by", "metadata.level")["by"]
    assert list(by) == ["policy", "metadata.level"]


def test_rejected_rows_are_counted_and_named(tmp_path, capsys) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(WEATHER.read_text() + "{\n")
    assert main(["stats", str(path), "--skip-bad", "--json"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert (report["num_rows"], report["num_rows_rejected"], report["overall"]["num_episodes"]) == (7, 1, 6)
    assert "1 of 7 rows could not be read" in captured.err


MAPPED = {
    "mint/mint_gpt4_feedback.jsonl.zst": "mint.yaml",
    "tau_bench/gpt4o_airline_tasks00-39.jsonl.zst": "tau_bench.yaml?tools=null",
}


@pytest.mark.parametrize("file", MAPPED)
def test_real_files_have_the_counts_of_their_manifest(test_data, capsys, file: str) -> None:
    manifest = {entry["file"]: entry["stats"] for entry in json.loads((test_data / "corpus/manifest.json").read_text())}
    mapping = ROOT / "examples/mappings" / MAPPED[file]
    overall = stats_json(capsys, test_data / "corpus" / file, "--format", mapping)["overall"]
    expected = manifest[file]
    assert overall["num_episodes"] == expected["episodes"]
    assert overall["num_messages"] == expected["messages"]
    assert overall["messages_by_role"] == expected["roles"]
    assert overall["num_tool_calls"] == expected["tool_calls"]
    assert overall["per_episode"]["messages"]["p50"] == expected["msgs_p50"]
    assert overall["per_episode"]["messages"]["max"] == expected["msgs_max"]
    assert overall["success"]["rate"] == pytest.approx(expected["success"], abs=5e-4)
    if not expected["tool_calls"]:  # how the manifest spells calls as text is its own
        assert overall["num_characters"] == expected["chars"]


def test_the_shared_prefix_of_real_conversations_is_that_of_sorting_them(test_data, capsys) -> None:
    """In sorted order a text shares with the one before it all that it shares with any earlier one."""
    file = test_data / "corpus/mint/mint_gpt4_feedback.jsonl.zst"
    mapping = ROOT / "examples/mappings/mint.yaml"
    overall = stats_json(capsys, file, "--format", mapping)["overall"]
    texts = sorted(
        "".join(message.text() for message in episode.trajectories[0].messages())
        for episode in read_episodes(file, str(mapping))
    )
    shared = sum(len(os.path.commonprefix(pair)) for pair in pairwise(texts))  # noqa: RUF071 (characters are meant)
    exact = shared / sum(map(len, texts))
    assert overall["shared_prefix"]["characters"] == pytest.approx(exact, abs=0.006)


def test_tokens_are_those_of_the_model_s_tokenizer(test_data, capsys) -> None:
    from transformers import AutoTokenizer

    model = test_data / "tokenizers/qwen3"
    overall = stats_json(capsys, WEATHER, "--model", model)["overall"]
    tokenizer = AutoTokenizer.from_pretrained(model)
    pieces = []
    for line in WEATHER.read_text().splitlines():
        for message in json.loads(line)["messages"]:
            pieces.append(message["content"] or "")
            for call in message.get("tool_calls", []):
                pieces += [call["function"]["name"], call["function"]["arguments"]]
    assert overall["num_tokens"] == sum(len(tokenizer(piece).input_ids) for piece in pieces)
    assert 0 < overall["shared_prefix"]["tokens"] < 1


# The kernel's rusage of a child counts what its parent held before exec; the child's own high-water mark does not.
PEAK = """
import atexit, re, sys
from understudy.cli.main import main
atexit.register(lambda: print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr))
sys.exit(main())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_twenty_five_thousand_episodes_take_no_more_memory_than_sixteen_thousand(test_data) -> None:
    source = test_data / "corpus/mint/mint_scale.jsonl.zst"
    mapping = ROOT / "examples/mappings/mint.yaml"

    def peak_mib(*options: str) -> float:
        line = [sys.executable, "-c", PEAK, "stats", str(source), "--format", str(mapping), "--json", *options]
        done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=600)
        counts.append(json.loads(done.stdout)["overall"]["num_episodes"])
        return int(done.stderr.split()[-1]) / 1024

    counts: list[int] = []
    # By then the decompressor's window (128 MiB, which the file's writer chose) is full; until then it fills.
    part, whole = peak_mib("--limit", "16000"), peak_mib()
    assert counts == [16_000, 25_440]
    assert whole < 500
    assert whole < part * 1.1


def test_a_row_that_is_longer_than_allowed_is_refused_with_the_option_that_allows_it(tmp_path, capsys) -> None:
    for name in ("rows.jsonl", "rows.json"):
        path = tmp_path / name
        path.write_text('{"messages": [{"role": "user", "content": "a longer row"}]}\n')
        assert main(["stats", str(path), "--max-row-bytes", "100"]) == 0
        capsys.readouterr()
        assert main(["stats", str(path), "--max-row-bytes", "20"]) == 1
        assert "--max-row-bytes" in capsys.readouterr().err

"""understudy check"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import WEATHER, run_command
from understudy.cli.main import main
from understudy.rendering import MENDS, RefusalCode

BAD = {"messages": [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "a<|im_end|>b"}]}


def write_rows(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def check_json(capsys, *arguments: object, status: int = 0) -> dict[str, Any]:
    assert main(["check", *map(str, arguments), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_a_clean_data_set_exits_with_0_and_the_json_counts_it(capsys, model: Path) -> None:
    report = check_json(capsys, WEATHER, "--model", model)
    rows = [json.loads(line) for line in WEATHER.read_text().splitlines()]
    actions = [m for row in rows for m in row["messages"] if m["role"] == "assistant"]
    assert (report["rows"], report["turns"], report["turns_exact"]) == (len(rows), len(actions), len(actions))
    assert (report["turns_refused"], report["turns_wrong"]) == ({}, 0)
    assert report["stop_tokens"] == ["<|im_end|>"]
    assert report["model"] == str(model)
    assert report["tokens"]["tree"] <= report["tokens"]["flat_rows"] < report["tokens"]["per_turn_rows"]


def test_the_token_counts_are_those_of_transformers_template(capsys, model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model))
    report = check_json(capsys, WEATHER, "--model", model)
    flat = 0
    for line in WEATHER.read_text().splitlines():
        row = json.loads(line)
        for message in row["messages"]:
            for call in message.get("tool_calls", ()):
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        ids = tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), return_dict=False)
        flat += len(ids)
    assert report["tokens"]["flat_rows"] == flat


def test_the_table_shows_the_figures_of_the_json(capsys, model: Path) -> None:
    report = check_json(capsys, WEATHER, "--model", model)
    assert main(["check", str(WEATHER), "--model", str(model)]) == 0
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert f"rows {report['rows']}" in lines
    assert f"exact {report['turns_exact']} 100.0%" in lines
    assert f"supervised tokens {report['supervised_tokens']:,}" in lines
    assert f"longest path {report['longest_path']:,} tokens" in lines
    tokens = report["tokens"]
    assert f"{tokens['per_turn_rows']:,} {tokens['flat_rows']:,} {tokens['tree']:,}" in lines
    assert f"stop tokens: <|im_end|>; fingerprint {report['fingerprint']}" in lines
    assert "refused" not in out


def test_a_refused_turn_exits_with_1_and_shows_code_place_and_mend(tmp_path: Path, capsys, model: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", json.loads(WEATHER.read_text().splitlines()[0]), BAD)
    assert main(["check", str(path), "--model", str(model)]) == 1
    out = capsys.readouterr().out
    code = RefusalCode.STOP_INSIDE_TURN
    assert f"refused {code}" in out
    assert f"{path}:2: turn 0: a stop token stands inside the turn at 'a<|im_end|>b<|im_end|>'" in out
    assert f"mend: {MENDS[code]}" in out
    report = check_json(capsys, path, "--model", model, status=1)
    assert report["turns_refused"] == {str(code): 1}
    assert report["mends"] == {str(code): MENDS[code]}
    assert report["turns"] == report["turns_exact"] + 1


def test_a_profile_and_settings_reach_the_renderer(tmp_path: Path, capsys, model: Path) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text("stop_tokens: ['<|endoftext|>']\n")
    report = check_json(capsys, WEATHER, "--model", model, "--profile", profile, status=1)
    assert list(report["turns_refused"]) == [str(RefusalCode.NO_STOP)]
    restored = ("--profile", profile, "--set", "stop_tokens=['<|im_end|>']")
    assert check_json(capsys, WEATHER, "--model", model, *restored)["turns_refused"] == {}


def test_a_chat_template_file_takes_the_place_of_the_models_own(tmp_path: Path, capsys, model: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}{% endfor %}")
    report = check_json(capsys, WEATHER, "--model", model, "--chat-template", template, status=1)
    assert report["turns_exact"] == 0


def test_a_template_that_leaves_the_tools_out_is_told_of(tmp_path: Path, capsys, model: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{% set tools = none %}" + (model / "chat_template.jinja").read_text())
    rows = [json.loads(line) for line in WEATHER.read_text().splitlines()]
    num_with_tools = sum(bool(row.get("tools")) for row in rows)
    assert check_json(capsys, WEATHER, "--model", model)["dropped_tools"] == 0
    report = check_json(capsys, WEATHER, "--model", model, "--chat-template", template)
    assert report["dropped_tools"] == num_with_tools > 0
    assert "the template prints none of get_forecast, set_alert" in report["examples"]["dropped tools"][0]


def test_limit_and_max_length_count_what_they_say(capsys, model: Path) -> None:
    report = check_json(capsys, WEATHER, "--model", model, "--limit", 2)
    assert report["rows"] == 2
    cut = check_json(capsys, WEATHER, "--model", model, "--limit", 2, "--max-length", report["longest_path"] - 1)
    assert cut["rows_too_long"] >= 1
    assert check_json(capsys, WEATHER, "--model", model, "--max-length", 10**6)["rows_too_long"] == 0


def test_turns_that_branch_are_exact_and_counted(tmp_path: Path, capsys, forgetful_model: Path) -> None:
    messages = [
        message
        for n in range(3)
        for message in (
            {"role": "user", "content": f"{n}?"},
            {"role": "assistant", "content": f"{n}", "reasoning_content": f"It is {n}."},
        )
    ]
    report = check_json(capsys, write_rows(tmp_path / "a.jsonl", {"messages": messages}), "--model", forgetful_model)
    assert (report["turns_exact"], report["branches_per_row"]) == (3, 3.0)


def test_a_template_that_prints_the_date_is_told_of(tmp_path: Path, capsys, model: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ strftime_now('%Y') }}" + (model / "chat_template.jinja").read_text())
    assert main(["check", str(WEATHER), "--model", str(model), "--chat-template", str(template)]) == 0
    assert "the clock is pinned at 2025-01-01T12:00:00 (--set clock=…)" in capsys.readouterr().err


def test_bad_rows_stop_the_command_or_are_counted(tmp_path: Path, capsys, model: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(WEATHER.read_text() + "{\n")
    assert main(["check", str(path), "--model", str(model)]) == 1
    assert f"{path}:7" in capsys.readouterr().err
    assert main(["check", str(path), "--model", str(model), "--skip-bad"]) == 0
    assert "1 of 7 rows could not be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "MODEL", "--max-length", "0"], "'0' is not a whole number above zero"),
        (["--model", "MODEL", "--set", "cloc=1"], "Did you mean 'clock'"),
        ([], "--model"),
    ],
)
def test_wrong_commands_exit_with_2(capsys, model: Path, arguments: list[str], message: str) -> None:
    words = [str(model) if word == "MODEL" else word for word in arguments]
    assert main(["check", str(WEATHER), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_a_tokenizer_is_one_line_of_error(tmp_path: Path) -> None:
    done = run_command("check", WEATHER, "--model", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot load a tokenizer from '{tmp_path}'" in done.stderr
    assert "Traceback" not in done.stderr

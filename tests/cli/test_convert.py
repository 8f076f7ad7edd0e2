"""understudy convert"""

from __future__ import annotations

import json

import pytest

from tests.cli.commands import WEATHER, run_command
from understudy.cli.main import main
from understudy.formats import read_episodes, write_episodes
from understudy.types import Episode, Message, SampledTokens, Trajectory, Turn

pytestmark = pytest.mark.filterwarnings("error")


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_is_written_and_the_account_is_given(tmp_path, capsys) -> None:
    target = tmp_path / "out.jsonl"
    assert main(["convert", str(WEATHER), str(target), "--to", "messages"]) == 0
    account = capsys.readouterr()
    assert account.out == ""
    assert "read as messages: 'messages' holds messages in the first 6 rows" in account.err
    assert f"wrote 6 episodes as 6 rows of 'messages' to {target}" in account.err
    assert [row["messages"] for row in rows(target)] == [row["messages"] for row in rows(WEATHER)]


def test_limit_takes_the_first_episodes(tmp_path) -> None:
    target = tmp_path / "out.jsonl"
    assert main(["convert", str(WEATHER), str(target), "--to", "messages", "--limit", "2"]) == 0
    assert [row["id"] for row in rows(target)] == ["weather-1", "weather-2"]


def test_several_sources_are_read_one_after_the_other(tmp_path) -> None:
    target = tmp_path / "out.jsonl"
    assert main(["convert", str(WEATHER), str(WEATHER), str(target), "--to", "messages"]) == 0
    assert len(rows(target)) == 12


def test_a_target_that_exists_is_kept_unless_overwrite_is_given(tmp_path, capsys) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("precious")
    assert main(["convert", str(WEATHER), str(target), "--to", "messages"]) == 2
    assert "exists already; --overwrite replaces it" in capsys.readouterr().err
    assert target.read_text() == "precious"
    assert main(["convert", str(WEATHER), str(target), "--to", "messages", "--overwrite"]) == 0
    assert len(rows(target)) == 6


def test_a_source_is_never_its_own_target(tmp_path, capsys) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(WEATHER.read_bytes())
    assert main(["convert", str(tmp_path), str(source), "--to", "messages", "--overwrite"]) == 2
    assert "is one of the files to read" in capsys.readouterr().err
    assert source.read_bytes() == WEATHER.read_bytes()


BAD = '{"messages": 7}\n{"messages": [{"role": "user"'


def test_a_bad_row_stops_everything_and_nothing_is_written(tmp_path, capsys) -> None:
    source, target = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_text(WEATHER.read_text() + BAD)
    assert main(["convert", str(source), str(target), "--to", "messages", "--format", "messages"]) == 1
    assert f"{source}:7: messages: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("named", [True, False])
def test_skipped_rows_are_kept_with_their_reasons_and_counted(tmp_path, capsys, named: bool) -> None:
    source, target = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rejects = tmp_path / ("bad.jsonl" if named else "out.jsonl.rejects.jsonl")
    source.write_text(WEATHER.read_text() + BAD)
    options = ["--format", "messages", "--skip-bad"] + (["--rejects", str(rejects)] if named else [])
    assert main(["convert", str(source), str(target), "--to", "messages", *options]) == 0
    account = capsys.readouterr().err
    assert f"2 of 8 rows could not be read; they are in {rejects}" in account
    assert account.count("  1 × ") == 2
    assert len(rows(target)) == 6
    assert [(row["row"], row["raw"]) for row in rows(rejects)] == list(enumerate(BAD.split("\n"), start=7))


def test_what_a_format_cannot_hold_is_listed_with_counts(tmp_path, capsys) -> None:
    sampled = SampledTokens(prompt_ids=(1, 2), output_ids=(3,))
    turn = Turn(None, (Message("user", "hi"),), Message("assistant", "hello"), sampled=sampled)
    source = tmp_path / "native.jsonl"
    write_episodes(source, [Episode(str(n), (Trajectory((turn,)),)) for n in range(3)])
    assert main(["convert", str(source), str(tmp_path / "out.jsonl"), "--to", "messages"]) == 0
    account = capsys.readouterr().err
    assert "what 'messages' cannot hold" in account
    line = next(line for line in account.splitlines() if "sampled" in line)
    assert line.split()[-1] == "3"


def test_the_native_format_gives_back_equal_episodes(tmp_path) -> None:
    for name in ("one.jsonl", "two.parquet", "three.json.gz"):
        assert main(["convert", str(WEATHER), str(tmp_path / name)]) == 0
        assert list(read_episodes(tmp_path / name)) == list(read_episodes(WEATHER))


def test_standard_input_and_output_carry_only_rows() -> None:
    done = run_command("convert", "-", "-", "--to", "messages", input=WEATHER.read_text())
    assert done.returncode == 0
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [f"weather-{n}" for n in range(1, 7)]
    assert "wrote 6 episodes" in done.stderr

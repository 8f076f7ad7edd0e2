"""Reading and writing episodes: detection, refusals, rejects, counts."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest

from understudy.errors import ConfigError, FormatError
from understudy.formats import Row, detect, get_format, read_episodes, write_episodes, write_rows
from understudy.types import Episode, Message, SampledTokens, Trajectory, Turn

from .open_files import open_files
from .rows import EXAMPLE_ROWS

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


@pytest.mark.parametrize("name", EXAMPLE_ROWS)
def test_a_format_is_detected_by_its_rows_and_no_other_fits(name: str) -> None:
    found = detect([Row(row, "f", 1) for row in EXAMPLE_ROWS[name]])
    assert found.format.name == name
    assert found.reason.startswith(f"{name}: '")


def test_detection_says_what_it_found_and_why(tmp_path: Path) -> None:
    reader = read_episodes(write(tmp_path / "a.jsonl", CHAT))
    list(reader)
    assert reader.detection is not None
    assert reader.detection.reason == "messages: 'messages' holds messages in the first row"


def test_rows_that_fit_several_formats_are_refused_with_the_candidates() -> None:
    both = CHAT | {"prompt": "a", "completion": "b"}
    with pytest.raises(FormatError) as caught:
        detect([Row(both, "f", 1)])
    assert "messages (" in caught.value.reason
    assert "prompt_completion (" in caught.value.reason
    assert caught.value.mend == "name the format"


def test_rows_that_fit_no_format_are_refused_with_their_keys() -> None:
    with pytest.raises(FormatError, match="an object with 'traj', 'task_id'") as caught:
        detect([Row({"traj": [], "task_id": 1}, "f", 3)])
    assert (caught.value.file, caught.value.row) == ("f", 3)


def test_an_empty_file_cannot_be_told_but_can_be_read_by_name(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.touch()
    with pytest.raises(FormatError, match="there is no row to tell the format by") as caught:
        list(read_episodes(file))
    assert caught.value.file == str(file)
    assert list(read_episodes(file, "messages")) == []
    file.write_text("{\n")
    with pytest.raises(FormatError, match="there is no row to tell the format by: none of 1 can be read"):
        list(read_episodes(file, skip_bad=True))


def test_a_typo_in_a_format_name_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'sharegpt'"):
        get_format("shargpt")


def test_a_format_of_ones_own_is_named_by_module_and_class(tmp_path: Path) -> None:
    (episode,) = read_episodes(write(tmp_path / "a.jsonl", CHAT), "understudy.formats.messages:Messages")
    assert episode.num_actions() == 1


def test_by_default_the_first_bad_row_stops_with_its_place(tmp_path: Path) -> None:
    bad = {"messages": [*CHAT["messages"], {"role": "tool", "content": {"a": 1}}]}
    file = write(tmp_path / "a.jsonl", CHAT, CHAT, bad, CHAT)
    reader = read_episodes(file)
    episodes = iter(reader)
    assert [next(episodes).id, next(episodes).id] == [f"{file}:1", f"{file}:2"]
    with pytest.raises(FormatError) as caught:
        next(episodes)
    expected = "messages[2].content: content is text, null or a list of parts, not an object"
    assert str(caught.value).startswith(f"{file}:3: {expected} (mend: ")


def test_a_file_whose_row_stops_the_reading_is_closed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "hi"}]}\n{"messages": 3}\n')
    gc.disable()  # which would close it some time
    try:
        with pytest.raises(FormatError):
            list(read_episodes(path, "messages"))
        assert path not in open_files()
    finally:
        gc.enable()


def test_bad_rows_are_skipped_on_request_kept_and_counted(tmp_path: Path) -> None:
    cut = json.dumps(CHAT)[:20]
    file = write(tmp_path / "a.jsonl", CHAT, cut, {"messages": []}, CHAT, "no JSON")
    file.write_bytes(file.read_bytes() + b"\xff{}\n" + json.dumps(CHAT).encode())
    rejects = tmp_path / "rejects.jsonl"
    reader = read_episodes(file, skip_bad=True, rejects=rejects)
    assert len(list(reader)) == 3
    assert (reader.num_rows, reader.num_episodes, reader.num_rejected) == (7, 3, 4)
    kept = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(one["file"], one["row"]) for one in kept] == [(str(file), number) for number in (2, 3, 5, 6)]
    assert (kept[0]["raw"], kept[0]["reason"]) == (cut, "the row is cut off")
    assert (kept[1]["field"], json.loads(kept[1]["raw"])) == ("messages", {"messages": []})
    assert kept[3]["raw"].encode("utf-8", "surrogateescape") == b"\xff{}"
    assert reader.reasons["there is no message"] == 1


def test_the_first_bad_row_of_any_kind_is_the_one_that_stops(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", CHAT, {"messages": []}, "no JSON")
    with pytest.raises(FormatError) as caught:
        list(read_episodes(file))
    assert caught.value.row == 2


def test_a_second_pass_gives_the_same_and_counts_anew(tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.jsonl"
    reader = read_episodes(write(tmp_path / "a.jsonl", CHAT, {}), skip_bad=True, rejects=rejects)
    assert list(reader) == list(reader)
    assert (reader.num_rows, reader.num_rejected) == (2, 1)
    assert len(rejects.read_text().splitlines()) == 1


def test_rejects_of_an_earlier_run_do_not_stay(tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.jsonl"
    rejects.write_text("old")
    list(read_episodes(write(tmp_path / "a.jsonl", CHAT), skip_bad=True, rejects=rejects))
    assert not rejects.exists()


def test_bad_rows_of_arrays_and_parquet_are_kept_too(tmp_path: Path) -> None:
    for name in ("a.json", "a.parquet"):
        write_rows(tmp_path / name, [CHAT, {"messages": [{"role": "user", "content": 5}]}, CHAT])
        rejects = tmp_path / "rejects.jsonl"
        assert len(list(read_episodes(tmp_path / name, skip_bad=True, rejects=rejects))) == 2
        kept = json.loads(rejects.read_text())
        assert (kept["row"], kept["field"]) == (2, "messages[0].content")
        assert json.loads(kept["raw"])["messages"][0]["content"] == 5


def test_writing_counts_what_a_format_does_not_hold(tmp_path: Path) -> None:
    chat = Episode.from_messages(CHAT["messages"], id="e")
    turn = Turn(None, action=Message("assistant", "a"), sampled=SampledTokens((1,), (2,)), reward=1.0)
    recorded = Episode("r", (Trajectory((turn,)),))
    result = write_episodes(tmp_path / "a.jsonl", [chat, recorded, recorded], "messages")
    assert (result.num_episodes, result.num_rows) == (3, 3)
    assert result.lost == {"trajectories.turns.sampled": 2, "trajectories.turns.reward": 2}


def test_a_format_that_can_only_be_read_refuses_to_write(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="can only be read"):
        write_episodes(tmp_path / "a.jsonl", [Episode.from_messages(CHAT["messages"])], "alpaca")
    assert list(tmp_path.iterdir()) == []


def test_episodes_without_an_id_are_named_by_file_and_row(tmp_path: Path) -> None:
    rows = {"trajectories": EXAMPLE_ROWS["trajectories"][0]["trajectories"] * 2}
    file = write(tmp_path / "a.jsonl", rows, rows)
    assert [one.id for one in read_episodes(file)] == [f"{file}:{name}" for name in ("1", "1/1", "2", "2/1")]

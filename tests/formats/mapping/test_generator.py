"""Python generators of records: what they may yield, and what becomes of their mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from understudy.errors import ConfigError, FormatError
from understudy.formats import get_format, read_episodes
from understudy.types import Episode, Message, SampledTokens

TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A file of generators."""
    file = tmp_path / "generators.py"
    file.write_text(
        """
from understudy.types import Episode, Message

def several(row):
    for messages in row["talks"]:
        yield {"messages": messages, "reward": row.get("reward"), "metadata": {"n": len(messages)}}

def as_list(row):
    return [{"messages": row["talk"], "id": "named"}]

def native(row):
    yield Episode.from_messages([Message("assistant", row["text"])], id="mine")

def recorded(row):
    *context, last = row["talk"]
    yield {"messages": [[*context, last | {"sampled": row["ids"], "reward": 2, "weight": 0.5}]], "tools": row["tools"]}

def with_options(row, tag, times=1):
    yield {"messages": row["talk"], "environment": tag * times}

def faulty(row):
    yield {"messages": row["talk"]}
    row["nothing"]

def yields(row):
    yield row["record"]

def no_generator(row):
    return None

CONSTANT = 1
"""
    )
    return file


def test_a_row_may_hold_several_episodes(module: Path) -> None:
    first, second = get_format(f"{module}:several").decode({"talks": [TALK, TALK[:1]], "reward": 1}, id="f:1")
    assert (first.id, second.id) == ("f:1", "f:1/1")
    assert (first.reward, first.metadata, second.metadata) == (1.0, {"n": 2}, {"n": 1})
    assert first.trajectories[0].messages() == [Message("user", "hi"), Message("assistant", "hello")]


def test_records_may_be_returned_in_a_list_and_may_be_episodes(module: Path) -> None:
    assert get_format(f"{module}:as_list").decode({"talk": TALK}, id="x")[0].id == "named"
    expected = Episode.from_messages([Message("assistant", "t")], id="mine")
    assert get_format(f"{module}:native").decode({"text": "t"}, id="x") == [expected]


def test_a_record_may_hold_calls_with_their_token_ids(module: Path) -> None:
    ids = {"prompt_ids": [1, 2], "output_ids": [3], "logprobs": [-0.1]}
    row = {"talk": TALK, "ids": ids, "tools": [{"name": "f"}]}
    (episode,) = get_format(f"{module}:recorded").decode(row, id="x")
    (turn,) = episode.trajectories[0].turns
    assert turn.sampled == SampledTokens((1, 2), (3,), (-0.1,))
    assert (turn.reward, turn.weight, [tool.name for tool in turn.tools]) == (2.0, 0.5, ["f"])


def test_options_become_arguments(module: Path) -> None:
    (episode,) = get_format(f"{module}:with_options?tag=ab&times=2").decode({"talk": TALK}, id="x")
    assert episode.environment == "abab"


def test_an_empty_conversation_is_an_episode_without_turns(module: Path) -> None:
    (episode,) = get_format(f"{module}:as_list").decode({"talk": []}, id="x")
    assert episode.trajectories[0].turns == ()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (":with_options", r"needs tag: write .*generators.py:with_options\?tag="),
        (":with_options?tga=x", "no option 'tga'. Did you mean 'tag'\\? Known: tag, times"),
        (":several?x=1", "no option 'x'. It has no options"),
        (":with_options?tag", "write an option as name=value, not 'tag'"),
        (":serveral", "no function 'serveral'. Did you mean 'several'"),
        (":CONSTANT", "no function 'CONSTANT'"),
    ],
)
def test_a_function_that_does_not_fit_is_refused_before_any_row(module: Path, name: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        get_format(f"{module}{name}")


def test_a_module_is_named_in_the_error_when_it_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_this_name")
    with pytest.raises(
        ConfigError, match=r"broken\.py:f cannot be imported: ModuleNotFoundError: .*nothing_of_this_name"
    ):
        get_format(f"{tmp_path}/broken.py:f")
    with pytest.raises(ConfigError, match=r"absent\.py:f: no such file"):
        get_format(f"{tmp_path}/absent.py:f")
    with pytest.raises(ConfigError, match=r"is no mapping: name a YAML file"):
        get_format("nothing?x=1")


def test_a_function_of_an_installed_package_is_found(monkeypatch: pytest.MonkeyPatch, module: Path) -> None:
    monkeypatch.syspath_prepend(str(module.parent))
    (episode,) = get_format("generators:as_list").decode({"talk": TALK}, id="x")
    assert episode.id == "named"


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ("text", "record 1 of .*:yields is text .mend: yield an Episode or a dict with messages"),
        ({"messages": TALK, "metdata": {}}, "record 1 of .* has the unknown key 'metdata'. Did you mean 'metadata'"),
        ({}, "messages: record 1 of .*: the messages are missing"),
        ({"messages": [{"content": "x"}]}, r"messages\[0\].role: record 1 of .*: a message needs a role"),
        ({"messages": TALK, "metadata": []}, "metadata: record 1 of .*: metadata is an object, not a list"),
        ({"messages": TALK, "success": "yes"}, "success: record 1 of .*: expected true or false"),
    ],
)
def test_what_is_no_record_is_refused_with_its_number(module: Path, record: Any, error: str) -> None:
    with pytest.raises(FormatError, match=error):
        get_format(f"{module}:yields").decode({"record": record}, id="x")


def test_a_function_that_does_not_yield_is_refused(module: Path) -> None:
    with pytest.raises(ConfigError, match="no_generator returned NoneType; write it with yield"):
        get_format(f"{module}:no_generator").decode({}, id="x")


def test_a_fault_in_the_function_costs_only_its_row(module: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps(row) for row in ({"talk": TALK, "nothing": 1}, {"talk": TALK}, {})))
    with pytest.raises(FormatError, match=r"rows\.jsonl:2: .*:faulty failed in line \d+ with KeyError: 'nothing'"):
        list(read_episodes(rows, f"{module}:faulty"))
    reader = read_episodes(rows, f"{module}:faulty", skip_bad=True)
    assert [episode.id for episode in reader] == [f"{rows}:1"]
    assert reader.num_rejected == 2

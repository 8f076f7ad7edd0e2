"""Every format of the table goes through one suite."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from tests.formats.rows import EXAMPLE_ROWS
from understudy import registry
from understudy.errors import FormatError, UnderstudyError
from understudy.formats import Format, get_format, read_episodes, write_episodes
from understudy.types import Episode, Message, SampledTokens, Tool, ToolCall, Trajectory, Turn

NAMES = list(registry.TABLES["formats"])
READ_ONLY = {"alpaca"}
TOOL = Tool({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}})


def plain() -> Episode:
    said = [("system", "s"), ("user", "q"), ("assistant", "a"), ("tool", "r"), ("assistant", "b")]
    messages = [Message(role, text) for role, text in said]
    return Episode.from_messages(messages, id="e", tools=[TOOL], reward=0.5, success=True, metadata={"k": [1, None]})


def rich() -> Episode:
    """A fork, two roots, two agents, recorded tokens, annotations."""
    ask, answer = Message("user", "q"), Message("assistant", None, "hm", (ToolCall("f", "{}", "c"),), extra={"x": 1})
    sampled = SampledTokens((1, 2), (3,), (-0.5,))
    turns = (
        Turn(None, (ask,), answer, tools=(TOOL,), reward=1.0, sampled=sampled, annotations={"score": 0.5}),
        Turn(0, (Message("tool", "r", tool_call_id="c"),), Message("assistant", "left"), weight=0.5),
        Turn(0, (), Message("assistant", "right")),
        Turn(None, (ask,), Message("assistant", "again")),
    )
    other = Trajectory((Turn(None, (ask,), Message("assistant", "other")),), agent="b", policy="p")
    return Episode(
        "r", (Trajectory(turns, agent="a"), other), task={"n": 1}, seed=3, error="lost", created_at="2024-01-01"
    )


@pytest.fixture(params=NAMES)
def format(request: pytest.FixtureRequest) -> Format:
    return get_format(request.param)


def test_it_is_named_and_summed_up_in_a_line(format: Format) -> None:
    assert registry.TABLES["formats"][format.name].endswith(f":{type(format).__name__}")
    assert 20 < len(format.summary) < 120
    assert inspect.getdoc(type(format))


def test_it_recognises_its_own_rows_and_no_others(format: Format) -> None:
    for name, rows in EXAMPLE_ROWS.items():
        for row in rows:
            reason = format.match(row)
            assert (reason is not None) == (name == format.name), (name, reason)
    assert format.match({}) is None


def test_it_leaves_the_row_as_it_is(format: Format) -> None:
    for row in EXAMPLE_ROWS[format.name]:
        before = json.dumps(row)
        format.decode(row, id="x")
        assert json.dumps(row) == before


def test_it_decodes_the_same_row_to_the_same_episodes(format: Format) -> None:
    for row in EXAMPLE_ROWS[format.name]:
        copy = json.loads(json.dumps(row))
        assert repr(format.decode(row, id="x")) == repr(format.decode(copy, id="x"))


def test_it_uses_the_id_that_it_is_given(format: Format) -> None:
    row = {key: value for key, value in EXAMPLE_ROWS[format.name][0].items() if key not in ("id", "record_id")}
    if format.name != "native":
        assert format.decode(row, id="given")[0].id == "given"


def test_its_example_rows_come_back_without_a_loss(format: Format) -> None:
    if format.name in READ_ONLY:
        with pytest.raises(FormatError, match="can only be read"):
            format.encode(plain())
        return
    for row in EXAMPLE_ROWS[format.name]:
        for episode in format.decode(row, id="x"):
            encoded = format.encode(episode)
            assert encoded.lost == ()
            (back,) = format.decode(json.loads(json.dumps(encoded.rows[0])), id="x")
            assert repr(format.encode(back).rows) == repr(encoded.rows)


def test_plain_chats_go_through_files_whole(format: Format, tmp_path: Any) -> None:
    if format.name in READ_ONLY:
        return
    for suffix in (".jsonl", ".json", ".parquet"):
        file = tmp_path / f"a{suffix}"
        result = write_episodes(file, [plain()] * 3, format)
        weights_move = {"trajectories.turns.weight"} if format.name in ("prompt_completion", "input_output") else set()
        assert set(result.lost) <= weights_move
        assert list(read_episodes(file)) == [plain()] * 3


def test_what_a_rich_episode_loses_is_named_and_nothing_trained_is_lost(format: Format) -> None:
    if format.name in READ_ONLY:
        return
    encoded = format.encode(rich())
    back = [one for row in encoded.rows for one in format.decode(json.loads(json.dumps(row)), id="x")]
    assert (encoded.lost == ()) == (back == [rich()])
    trained = [turn.action for one in back for _, _, turn in one.turns() if turn.action and turn.weight]
    texts = sorted(message.text() or message.tool_calls[0].name for message in trained)
    assert texts == ["again", "f", "left", "other", "right"], "each action is trained once, whatever the rows"


@pytest.mark.parametrize("row", [None, [], "text", 5, {}, {"messages": 5, "conversations": 5, "trajectories": 5}])
def test_it_refuses_what_is_no_row_of_its_own(format: Format, row: Any) -> None:
    with pytest.raises(UnderstudyError) as caught:
        format.decode(row, id="x")
    assert caught.value.args[0]

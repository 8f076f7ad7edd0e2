"""AgentRL's records: values by message index."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from understudy.errors import FormatError
from understudy.formats import get_format, read_episodes, write_rows
from understudy.types import Episode

RECORD = get_format("record_data")
CHAT = [{"role": role, "content": role} for role in ("system", "user", "assistant", "tool", "assistant", "user")]


def decode(**rest: Any) -> Episode:
    (episode,) = RECORD.decode({"messages": CHAT, "scores": {}, **rest}, id="f:1")
    return episode


def test_values_of_assistant_messages_are_annotations_of_their_turns() -> None:
    episode = decode(scores={"2": 1.0, "4": 0}, advantages={4: -2.5}, created_at_step={"2": 7}, logprobs={"4": [-0.1]})
    assert [turn.annotations for _, _, turn in episode.turns()] == [
        {"score": 1.0, "created_at_step": 7},
        {"score": 0, "advantage": -2.5, "logprobs": [-0.1]},
        {},
    ]


def weights(episode: Episode) -> list[float]:
    return [turn.weight for _, _, turn in episode.turns() if turn.action is not None]


def test_advantages_name_what_is_trained() -> None:
    assert weights(decode(advantages={"4": 0.5})) == [0, 1]
    assert weights(decode(advantages={"2": 0.0, "4": None})) == [1, 0]


def test_without_advantages_of_assistant_messages_all_of_them_are_trained() -> None:
    assert weights(decode()) == weights(decode(advantages={})) == weights(decode(advantages={"1": 0.5})) == [1, 1]


def test_a_flag_of_its_own_has_the_last_word_on_a_message() -> None:
    flagged = [CHAT[0], CHAT[1], CHAT[2] | {"weight": 0.5}, *CHAT[3:]]
    assert weights(decode(messages=flagged, advantages={"4": 1.0})) == [0.5, 1]


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_a_turn_without_an_advantage_beside_others_comes_back_with_its_weight(weight: float) -> None:
    episode = decode(advantages={"4": 1.0})
    first, *rest = episode.trajectories[0].turns
    trajectory = replace(episode.trajectories[0], turns=(replace(first, weight=weight), *rest))
    encoded = RECORD.encode(replace(episode, trajectories=(trajectory,)))
    assert encoded.lost == ()
    assert ("weight" in encoded.rows[0]["messages"][2]) == (weight > 0)
    (again,) = RECORD.decode(encoded.rows[0], id="f:1")
    assert weights(again) == [weight, 1]


def test_a_record_comes_back_key_by_key() -> None:
    row = {
        "messages": CHAT,
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "scores": {"2": 1.0, "4": 0.5},
        "advantages": {"2": -1.0},
        "created_at_step": {"4": 3},
        "logprobs": {"4": [-0.1, -0.2]},
        "reward": 0.25,
        "step": 12,
        "record_id": "abc",
    }
    (episode,) = RECORD.decode(row, id="f:1")
    assert (episode.id, episode.reward, episode.metadata) == ("abc", 0.25, {"step": 12})
    encoded = RECORD.encode(episode)
    assert (encoded.rows, encoded.lost) == ([row], ())


def test_values_of_other_messages_are_kept_and_come_back() -> None:
    episode = decode(scores={"0": 0.5, "2": 1.0}, logprobs={"5": [1]})
    assert episode.metadata == {"record_data": {"scores": {"0": 0.5}, "logprobs": {"5": [1]}}}
    row = RECORD.encode(episode).rows[0]
    assert (row["scores"], row["logprobs"]) == ({"0": 0.5, "2": 1.0}, {"5": [1]})


def test_metadata_that_only_look_like_ours_are_left_alone() -> None:
    for value in (5, {"scores": 5}, {"scores": {"2": 1.0}}, {"scores": {"99": 1.0}}, {"scores": {}}):
        episode = decode(metadata={"record_data": value})
        assert RECORD.encode(episode).lost == ()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ([1.0], "scores"),
        ({"6": 1.0}, "scores"),
        ({"-1": 1.0}, "scores"),
        ({"two": 1.0}, "scores"),
        ({"9" * 5000: 1.0}, "scores"),
        ({"2": "high"}, "scores[2]"),
        ({"2": float("nan")}, "scores[2]"),
    ],
)
def test_values_that_would_weigh_the_loss_wrongly_are_refused(values: Any, field: str) -> None:
    with pytest.raises(FormatError) as caught:
        decode(scores=values)
    assert caught.value.field == field


def test_values_may_be_json_text() -> None:
    assert decode(scores='{"2": 0.5}', advantages="{}") == decode(scores={"2": 0.5})
    with pytest.raises(FormatError) as caught:
        decode(scores="{2: 0.5}")
    assert caught.value.field == "scores"


def test_a_missing_reward_stays_unknown() -> None:
    assert decode().reward is None


def test_annotations_that_are_no_numbers_are_named_as_lost() -> None:
    (episode,) = get_format("native").decode(
        {
            "schema_version": 1,
            "id": "e",
            "trajectories": [
                {"turns": [{"parent": None, "action": {"role": "assistant"}, "annotations": {"score": "high", "x": 1}}]}
            ],
        },
        id="",
    )
    lost = RECORD.encode(episode).lost
    assert lost == ("trajectories.turns.annotations.score", "trajectories.turns.annotations.x")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.parquet"])
def test_records_are_read_from_json_and_parquet(name: str, tmp_path: Any) -> None:
    row = {"messages": CHAT, "scores": {"2": 1.0}, "advantages": {"4": -1.0}, "reward": 1.0}
    write_rows(tmp_path / name, [row, row | {"scores": {"4": 2.0}}])
    found = [[turn.annotations for _, _, turn in one.turns()] for one in read_episodes(tmp_path / name)]
    assert found == [[{"score": 1.0}, {"advantage": -1.0}, {}], [{}, {"score": 2.0, "advantage": -1.0}, {}]]

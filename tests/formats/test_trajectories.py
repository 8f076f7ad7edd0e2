"""MRLM's data sets: what an observation's messages are, and nothing of state, info and components lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from understudy.errors import FormatError
from understudy.formats import BadRow, get_format, read_episodes, read_rows, write_episodes
from understudy.types import Episode, Message

FORMAT = get_format("trajectories")
U, A, B = ({"role": role, "content": text} for role, text in (("user", "u"), ("assistant", "a"), ("assistant", "b")))
NO = {"role": "environment", "content": "no"}


def observe(*messages: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"messages": list(messages), "done": False, **rest}


def decode(observations: list[Any], actions: list[Any], rewards: list[Any], **rest: Any) -> Episode:
    item = {"observations": observations, "actions": actions, "rewards": rewards, **rest}
    (episode,) = FORMAT.decode({"trajectories": [item]}, id="f:1")
    return episode


@pytest.mark.parametrize(
    "second",
    [observe(U, A, NO), observe(A, NO), observe(NO)],
    ids=["cumulative", "after the action", "only what is new"],
)
def test_only_new_messages_are_observed_however_they_are_shown(second: dict[str, Any]) -> None:
    episode = decode([observe(U), second, observe(done=True)], [A, B], [{"value": 0.0}, {"value": 1.0}])
    said = [(message.role, message.content) for message in episode.trajectories[0].messages()]
    assert said == [("user", "u"), ("assistant", "a"), ("user", "no"), ("assistant", "b")]
    assert len(episode.trajectories[0].turns) == 2


def test_an_observation_that_begins_otherwise_is_new_as_a_whole() -> None:
    episode = decode([observe(U), observe(U, NO)], [A, B], [])
    assert [message.content for message in episode.trajectories[0].messages()] == ["u", "a", "u", "no", "b"]


def test_the_role_environment_becomes_a_named_user_and_comes_back() -> None:
    episode = decode([observe(NO)], [A], [{"value": 1.0}])
    assert episode.trajectories[0].turns[0].observation == (Message("user", "no", name="environment"),)
    shown = FORMAT.encode(episode).rows[0]["trajectories"][0]["observations"][0]["messages"]
    assert shown == [NO]


def test_state_info_done_components_and_metadata_are_kept() -> None:
    episode = decode(
        [observe(U, state={"n": 1}, info={"i": 2}), observe(NO, done=True), observe(U, done=False, info={"end": [1]})],
        [A, B],
        [{"value": 0.5, "components": {"c": 0.5}, "info": {"why": "x"}}, {"value": -1.0, "components": {}, "info": {}}],
        metadata={"num_steps": 2},
        extra_key=1,
    )
    assert [turn.annotations for _, _, turn in episode.turns()] == [
        {
            "observation": {"state": {"n": 1}, "info": {"i": 2}},
            "reward": {"components": {"c": 0.5}, "info": {"why": "x"}},
        },
        {"observation": {"done": True}},
        {"observation": {"done": False, "info": {"end": [1]}}},
    ]
    assert [turn.reward for _, _, turn in episode.turns()] == [0.5, -1.0, None]
    assert episode.metadata == {"num_steps": 2, "extra_key": 1}
    encoded = FORMAT.encode(episode)
    assert encoded.lost == ()
    (item,) = encoded.rows[0]["trajectories"]
    assert item["observations"][0] == {"messages": [U], "state": {"n": 1}, "done": False, "info": {"i": 2}}
    assert item["rewards"][0] == {"value": 0.5, "components": {"c": 0.5}, "info": {"why": "x"}}


def test_messages_are_written_whole_because_a_model_is_shown_one_observation() -> None:
    episode = decode([observe(U), observe(NO)], [A, B], [])
    shown = FORMAT.encode(episode).rows[0]["trajectories"][0]["observations"]
    assert [len(one["messages"]) for one in shown] == [1, 3]


def test_the_reward_of_an_episode_is_their_sum_unless_it_is_stated() -> None:
    rewards = [{"value": 0.5}, {"value": 0.25}]
    assert decode([observe(U), observe(NO)], [A, B], rewards).reward == 0.75
    assert decode([observe(U), observe(NO)], [A, B], rewards, reward=None).reward is None
    assert decode([observe(U), observe(NO)], [A, B], []).reward is None


@pytest.mark.parametrize(
    ("observations", "actions", "rewards", "field"),
    [
        ([observe(U)], [A, B], [], "observations"),
        ([observe(U)] * 3, [A], [], "observations"),
        ([observe(U)], [A], [{"value": 1}, {"value": 2}], "rewards"),
        ([observe(U)], [A], [{"value": float("nan")}], "rewards[0].value"),
        ([observe(U), {"messages": 5}], [A], [], "observations[1].messages"),
        ([observe({"content": "x"})], [A], [], "observations[0].messages[0].role"),
        ([observe(U)], [5], [], "actions[0]"),
        (None, [A], [], "observations"),
    ],
)
def test_a_refusal_names_the_very_field(observations: Any, actions: Any, rewards: Any, field: str) -> None:
    with pytest.raises(FormatError) as caught:
        decode(observations, actions, rewards)
    assert caught.value.field == f"trajectories[0].{field}"


def dataset(num_trajectories: int, stated: int | None = None) -> dict[str, Any]:
    items = [{"observations": [observe(U)], "actions": [A], "rewards": [{"value": i}]} for i in range(num_trajectories)]
    return {"trajectories": items, "num_trajectories": stated or num_trajectories, "num_transitions": num_trajectories}


def test_a_data_set_in_one_object_is_read_item_by_item(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for indent in (None, 2):
        file.write_text(json.dumps(dataset(5), indent=indent))
        assert [one.reward for one in read_episodes(file)] == [0, 1, 2, 3, 4]


def test_a_bad_item_costs_no_other_and_a_wrong_count_is_reported(tmp_path: Path) -> None:
    broken = dataset(4, stated=5)
    broken["trajectories"][1]["actions"] = None
    file = tmp_path / "a.json"
    file.write_text(json.dumps(broken))
    reader = read_episodes(file, skip_bad=True)
    assert [one.reward for one in reader] == [0, 2, 3]
    assert set(reader.reasons) == {"expected a list, not null", "the file states 5 trajectories, but holds 4"}


def test_a_data_set_that_is_cut_off_is_reported(tmp_path: Path) -> None:
    text = json.dumps(dataset(3))
    file = tmp_path / "a.json"
    for end in (text.index('"num_') - 1, len(text) - 1, text.index("]}]") + 2):
        file.write_text(text[:end])
        bad: list[BadRow] = []
        assert len(list(read_rows(file, on_bad=bad.append))) >= 2
        assert len(bad) == 1


def test_a_json_file_is_one_data_set_as_mrlm_loads_it(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(dataset(3)))
    write_episodes(tmp_path / "b.json", read_episodes(file), "trajectories")
    written = json.loads((tmp_path / "b.json").read_text())
    assert (written["num_trajectories"], written["num_transitions"], len(written["trajectories"])) == (3, 3, 3)
    assert [one.reward for one in read_episodes(tmp_path / "b.json")] == [0, 1, 2]

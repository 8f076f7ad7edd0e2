"""A dream shows what would really have happened, ends by rules that are told, and never guesses a success."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.training import make_base
from tests.world_models.conftest import CORRIDOR, WANDERER, collected
from tests.world_models.corridor import Corridor
from understudy.cli.main import main
from understudy.collect import CollectConfig, prepare
from understudy.collect.dream import DreamConfig
from understudy.config import config_from_dict
from understudy.environments import HasTasks, Observation, Reward, Step, user
from understudy.errors import ConfigError
from understudy.formats import read_episodes
from understudy.types import JSON, Episode
from understudy.world_models.dream import Dream


def dreamt(folder: Path, model: str, **settings: Any) -> list[Episode]:
    """Collect in a dream of the corridor."""
    arguments = {"environment": CORRIDOR, "world_model": model} | settings.pop("arguments", {})
    file = collected(folder, environment={"name": "dream", "arguments": arguments}, **settings)
    return list(read_episodes(file))


def test_replayed_actions_are_answered_as_they_really_were(model: str, walks: Path, tmp_path: Path) -> None:
    replay = {"name": "replay", "arguments": {"source": str(walks)}}
    dreams = dreamt(tmp_path / "out", model, policy=replay, num_episodes=60, samples_per_task=4)
    real = {(str(e.task), e.metadata["sample"]): e for e in read_episodes(walks)}
    assert [episode.error for episode in dreams] == [None] * 60
    pairs = [(episode, real[str(episode.task), episode.metadata["sample"]]) for episode in dreams]
    same = [
        ours.trajectories[0].messages() == theirs.trajectories[0].messages() and ours.stop_reason == theirs.stop_reason
        for ours, theirs in pairs
    ]
    assert sum(same) >= 0.9 * len(same)


def test_nothing_is_rewarded_and_success_is_unknown(model: str, tmp_path: Path) -> None:
    dreams = dreamt(tmp_path / "out", model, num_episodes=15)
    assert {(e.success, e.reward, t.success, t.reward) for e in dreams for t in e.trajectories} == {(None,) * 4}
    assert {episode.stop_reason for episode in dreams} <= {"there", "late"}
    (stats,) = (tmp_path / "out").glob("*_stats.json")
    assert json.loads(stats.read_text())["num_success_known"] == 0
    observed = [turn.annotations["info"] for e in dreams for t in e.trajectories for turn in t.turns[1:]]
    assert all(info["is_whole"] and info["logprob"] < 0 for info in observed)


@pytest.mark.parametrize(
    ("arguments", "reasons", "num_actions"),
    [
        ({"max_steps": 2}, {"max_steps", "there"}, {1, 2}),
        ({"ends": {"moved": "^assistant: (left|right)$"}}, {"moved"}, {1}),
        ({"ends": {"third": r"^user: .*left 3$"}}, {"third", "there"}, {1, 2}),
        ({"world_model": {"max_context": 70}}, {"context_length", "there"}, {1, 2, 3}),
    ],
    ids=["max_steps", "an action", "an observation", "context"],
)
def test_a_dream_ends_by_rules(
    model: str, tmp_path: Path, arguments: dict[str, Any], reasons: set[str], num_actions: set[int]
) -> None:
    if "world_model" in arguments:
        arguments = {"world_model": {"model": model, **arguments["world_model"]}}
    dreams = dreamt(tmp_path / "out", model, arguments=arguments, num_episodes=15)
    assert {episode.stop_reason for episode in dreams} == reasons
    assert {sum(turn.action is not None for turn in e.trajectories[0].turns) for e in dreams} <= num_actions


def test_tasks_are_those_of_the_environment(model: str) -> None:
    dream = Dream(CORRIDOR, model)
    assert isinstance(dream, HasTasks)
    assert len(dream.tasks("train")) == 15
    blind = f"{__package__}.corridor:Blind"
    assert not isinstance(Dream(blind, model), HasTasks)
    settings = {"environment": {"name": "dream", "arguments": {"environment": blind, "world_model": model}}}
    with pytest.raises(ConfigError, match="has no task set, so say how many episodes"):
        prepare(config_from_dict(CollectConfig, settings | {"policy": {"name": WANDERER}, "output_dir": "out"}))


def test_a_dream_of_a_mix_is_recorded_as_a_dream(model: str, tmp_path: Path) -> None:
    mix = {"name": "mix", "arguments": {"environments": {"hall": CORRIDOR, "way": CORRIDOR}}}
    dreams = dreamt(tmp_path / "out", model, arguments={"environment": mix}, num_episodes=8)
    assert {(e.environment, e.error) for e in dreams} == {("dream", None)}
    assert [e.task["environment"] for e in dreams] == ["hall", "way"] * 4
    assert {e.stop_reason for e in dreams} <= {"there", "late"}


class Over(Corridor):
    """It is over before the agent can act, and another agent sees that too."""

    agents = ("agent", "other")

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        seen = Observation((user("It is closed."),))
        over = {"success": {"agent": True}, "stop_reason": "closed"}
        return Step({"agent": seen, "other": seen}, {"agent": Reward(1.0)}, terminated=True, **over)


def test_a_dream_that_is_over_at_once_says_why_and_rewards_nothing(model: str, tmp_path: Path) -> None:
    arguments = {"environment": f"{__name__}:Over", "agent": "agent"}
    (episode,) = dreamt(tmp_path / "out", model, arguments=arguments, num_episodes=1)
    assert (episode.error, episode.stop_reason) == (None, "closed")
    assert (episode.success, episode.reward) == (None, None)
    assert [m.text() for m in episode.trajectories[0].messages()] == ["It is closed."]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"environment": "corridr"}, r"unknown environment 'corridr'"),
        (
            {"environment": {"name": "grid", "arguments": {"sise": 3}}},
            r"grid has no argument 'sise'. Did you mean 'size'",
        ),
        ({"world_model": {"modl": "x"}}, r"world_model: modl: unknown key. Did you mean 'model'"),
        ({"ends": {"over": "("}}, r"ends.over: '\(' is no regular expression"),
        ({"max_steps": 0}, r"max_steps is 0"),
        ({"environment": "team"}, r"has planner, solver, and is not given; a dream is of one agent"),
        ({"environment": "team", "agent": "solvr"}, r"and 'solvr' is none of them"),
        ({"environment": {"name": "grid", "arguments": {"view": "replace"}}}, r"adds to the conversation"),
    ],
)
def test_what_cannot_be_dreamt_is_refused(model: str, tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        dreamt(tmp_path / "out", model, arguments=arguments, num_episodes=2)


def test_an_agent_who_must_wait_for_others_cannot_begin_a_dream(model: str, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"environment": "team", "agent": "planner"}
    (episode,) = dreamt(tmp_path / "out", model, arguments=arguments, num_episodes=1)
    assert "'planner' observes nothing before others have acted" in str(episode.error)
    (episode,) = dreamt(
        tmp_path / "b", model, arguments=arguments | {"agent": "solver", "max_steps": 1}, num_episodes=1
    )
    assert (episode.error, [t.agent for t in episode.trajectories]) == (None, ["solver"])


def test_the_command_is_a_collection_that_goes_on(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "collection.yaml"
    config.write_text(
        f"environment: {{name: '{CORRIDOR}'}}\npolicy: {{name: '{WANDERER}'}}\noutput_dir: {tmp_path / 'out'}"
    )
    command = ["dream", str(config), f"world_model.model={model}"]
    assert main([*command, "num_episodes=4"]) == 0
    assert main([*command, "num_episodes=6", "ends={}"]) == 0
    assert "played 2 episodes (4 were there already); 6 are in" in capsys.readouterr().err.replace("\n", " ")
    assert main(["collect", str(tmp_path / "out" / "config.yaml")]) == 0
    assert "played 0 episodes (6 were there already)" in capsys.readouterr().err
    assert {episode.environment for episode in read_episodes(str(tmp_path / "out"))} == {"dream"}
    assert main([*command, "world_model.temperatur=1"]) == 2
    assert "Did you mean 'world_model.temperature'?" in capsys.readouterr().err


@pytest.mark.parametrize("changed", ["dreams", "acts"])
def test_dreams_of_weights_that_have_changed_are_not_mixed_with_those_of_the_new_ones(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: str
) -> None:
    for name in ("dreams", "acts"):
        shutil.copytree(Path(model) / "final", tmp_path / name)
    out = tmp_path / "out"
    command = [
        *("dream", f"environment.name={CORRIDOR}", f"world_model.model={tmp_path / 'dreams'}", "policy.name=local"),
        *(f"policy.arguments={{model: {tmp_path / 'acts'}, max_new_tokens: 4}}", "max_steps=2", f"output_dir={out}"),
    ]
    assert main([*command, "num_episodes=2"]) == 0
    assert main([*command, "num_episodes=3"]) == 0
    shutil.rmtree(tmp_path / changed)
    make_base(tmp_path / changed, hidden_size=16)
    capsys.readouterr()
    assert main([*command, "num_episodes=4"]) == 2
    said = f"{out}: holds episodes of {tmp_path / changed} as it was before"
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert len(list(read_episodes(str(out)))) == 3


def test_the_commands_config_is_that_of_a_collection_in_a_dream(model: str) -> None:
    given = {"environment": {"name": "grid"}, "policy": {"name": "random"}, "output_dir": "out", "num_episodes": 3}
    config = config_from_dict(DreamConfig, given | {"world_model": {"model": model}, "max_steps": 4})
    found = config.collection()
    assert found.environment.arguments == {
        "environment": {"name": "grid", "arguments": {}}, "world_model": {"model": model}, "agent": None, "ends": {},
        "max_steps": 4,
    }  # fmt: skip
    assert found.model_copy(update={"environment": config.environment}) == config_from_dict(CollectConfig, given)

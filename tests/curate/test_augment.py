"""Augmentation: what copies change, what they leave, and that nothing held out is touched."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from understudy import registry
from understudy.config import Component
from understudy.curate.augment import ORIGIN, augmented, make_augmentations
from understudy.errors import ConfigError, DataError
from understudy.formats import read_episodes
from understudy.types import Episode, SampledTokens

from .test_curation import run

NAMES = ("search", "read", "write", "send")
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in NAMES]
MESSAGES = [
    {"role": "user", "content": "look"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "function": {"name": "read", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "1", "content": "found"},
    {"role": "assistant", "content": "done"},
]


def episode(n: int = 0, tools: list[dict[str, Any]] = TOOLS) -> Episode:
    made = Episode.from_messages(MESSAGES, id=f"e{n}", tools=tools, success=True, reward=1.0)
    (trajectory,) = made.trajectories
    turns = tuple(replace(turn, sampled=SampledTokens((1,), (2,))) for turn in trajectory.turns)
    return replace(made, task={"n": n}, trajectories=(replace(trajectory, turns=turns),))


def copies(of: Episode, *components: dict[str, Any], num: int = 1, seed: int = 0) -> list[Episode]:
    made = make_augmentations([Component(**component) for component in components])
    return list(augmented(of, made, copies=num, seed=seed))


def tools_of(one: Episode) -> list[str]:
    return [tool.name for tool in one.trajectories[0].tools()]


def test_tools_stand_in_another_order_and_all_else_is_as_it_was() -> None:
    found = copies(episode(), {"name": "shuffle_tools"}, num=5)
    assert [one.id for one in found] == [f"e0~{number}" for number in range(1, 6)][: len(found)]
    orders = [tools_of(one) for one in found]
    assert all(sorted(order) == sorted(NAMES) and order != list(NAMES) for order in orders)
    assert len(set(map(tuple, orders))) == len(orders) >= 3, "no copy is as another"
    for one in found:
        assert one.trajectories[0].messages() == episode().trajectories[0].messages()
        assert (one.task, one.reward, one.success, one.metadata[ORIGIN]) == ({"n": 0}, 1.0, True, "e0")
        assert all(turn.sampled is None for turn in one.trajectories[0].turns), "those ids are of another prompt"
    assert found == copies(episode(), {"name": "shuffle_tools"}, num=5)
    assert found != copies(episode(), {"name": "shuffle_tools"}, num=5, seed=1)


def test_an_agent_that_has_the_same_tools_again_has_them_in_the_same_order() -> None:
    (trajectory,) = episode().trajectories
    turns = (trajectory.turns[0], replace(trajectory.turns[1], parent=None, tools=trajectory.turns[0].tools))
    rewritten = replace(episode(), trajectories=(replace(trajectory, turns=turns),))
    for name in ("shuffle_tools", "drop_unused_tools"):
        for copy in copies(rewritten, {"name": name}, num=8):
            first, second = copy.trajectories[0].turns
            assert first.tools == second.tools


def test_only_tools_that_were_never_called_are_left_out() -> None:
    (one,) = copies(episode(), {"name": "drop_unused_tools", "arguments": {"chance": 1.0}}, num=3)
    assert tools_of(one) == ["read"]
    for found in copies(episode(), {"name": "drop_unused_tools"}, {"name": "shuffle_tools"}, num=8):
        assert "read" in tools_of(found)


def test_what_cannot_be_otherwise_has_no_copy() -> None:
    for tools in ([], TOOLS[:1]):
        assert copies(episode(tools=tools), {"name": "shuffle_tools"}, num=3) == []


def test_copies_are_trained_on_and_never_held_out(tmp_path: Path) -> None:
    data = [episode(n) for n in range(20)]
    given = {"augment": [{"name": "shuffle_tools"}], "augment_copies": 2, "validation_split": 0.25}
    result = run(tmp_path, data, **given)
    train, validation = (list(read_episodes(path)) for path in (result.train, result.validation) if path)
    added = [one for one in train if ORIGIN in one.metadata]
    assert (len(added), len(train)) == (result.num_augmented, result.num_train + result.num_augmented)
    assert result.num_train < result.num_augmented <= 2 * result.num_train
    assert not any(ORIGIN in one.metadata for one in validation)
    held_out = {json.dumps(one.task) for one in validation}
    assert not held_out & {json.dumps(one.task) for one in added}
    assert len({one.id for one in train}) == len(train)
    again = run(tmp_path, train, overwrite=True, **given | {"validation_split": 0})
    assert again.num_read == result.num_train, "copies are made anew, and not of copies"
    assert json.loads((tmp_path / "out" / "curation_stats.json").read_text())["num_augmented"] == again.num_augmented


class Says:
    """Says another thing first."""

    def __call__(self, episode: Episode, rng: random.Random) -> Any:
        (trajectory,) = episode.trajectories
        first, *rest = trajectory.turns
        asked = replace(first.observation[0], content=rng.choice(["look!", "look, please"]))
        turns = (replace(first, observation=(asked, *first.observation[1:])), *rest)
        return replace(episode, trajectories=(replace(trajectory, turns=turns),))


class Fails:
    def __call__(self, episode: Episode, rng: random.Random) -> Any:
        raise KeyError("x")


class Returns:
    def __call__(self, episode: Episode, rng: random.Random) -> Any:
        return 5


def test_an_augmentation_may_be_ones_own() -> None:
    (one,) = copies(episode(), {"name": f"{__name__}:Says"})
    assert one.trajectories[0].messages()[0].text() in ("look!", "look, please")
    for name, said in (("Fails", "episode 'e0': Fails failed with KeyError"), ("Returns", "Returns returned int")):
        with pytest.raises(DataError, match=said):
            copies(episode(), {"name": f"{__name__}:{name}"})


@pytest.mark.parametrize(
    ("component", "said"),
    [
        ({"name": "shufle_tools"}, "unknown augmentation 'shufle_tools'. Did you mean 'shuffle_tools'"),
        ({"name": "drop_unused_tools", "arguments": {"chance": 2}}, "chance is 2"),
        ({"name": f"{__name__}:Episode", "arguments": {"id": "x"}}, "is no augmentation"),
    ],
)
def test_what_is_none_is_refused(component: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        copies(episode(), component)


@pytest.mark.parametrize("name", registry.TABLES["augmentations"])
def test_every_augmentation_of_the_table_gives_an_episode_or_nothing(name: str) -> None:
    augmentation = registry.create("augmentations", name)
    for seed in range(20):
        found = augmentation(episode(), random.Random(seed))
        assert found is None or found != episode()

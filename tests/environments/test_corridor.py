"""The example of an environment with all that one may offer besides: what it tells is so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.training import ROOT
from understudy import registry
from understudy.collect import Play, play_all
from understudy.environments import Reading, says, split_of, user
from understudy.policies import Policy
from understudy.policies.random_policy import RandomPolicy
from understudy.policies.scripted import ExpertPolicy
from understudy.types import Episode

NAME = f"{ROOT}/examples/environments/corridor.py:Corridor"


def make() -> Any:
    return registry.create("environments", NAME)


def played(policy: Policy, split: str) -> list[Episode]:
    episodes: list[Episode] = []
    plays = [Play(id=f"{n}", task=task, seed=n, split=split) for n, task in enumerate(make().tasks(split))]
    asyncio.run(play_all(plays, make, {"agent": policy}, episodes.append, concurrency=16))
    return episodes


def test_the_expert_arrives_in_time_on_every_task() -> None:
    assert {e.success for split in ("train", "validation", "test") for e in played(ExpertPolicy(), split)} == {True}


def test_what_is_read_off_a_walk_is_how_it_stands() -> None:
    for episode in played(RandomPolicy(), "train"):
        *before, last = [m for m in episode.trajectories[0].messages() if m.role == "user"]
        assert {make().read(episode.task, [message]) for message in before} == {Reading()}
        assert make().read(episode.task, [last]) == Reading(episode.stop_reason, float(episode.success is True))
    assert make().read(None, [user("at 0 left 4 left 8")]) == Reading()
    assert make().read(None, [user("at 3 door 4 left 8"), says("at 4 door 4 left 7")]) == Reading()


def test_a_failed_walk_is_one_to_where_it_led() -> None:
    failed = [episode for episode in played(RandomPolicy(), "train") if not episode.success]
    found = [new for episode in failed for new in make().relabel(episode)]
    assert len(found) > 0.5 * len(failed)
    for new in found:
        last = new.trajectories[0].messages()[-1].text()
        assert last.startswith(f"at {new.task['door']} door {new.task['door']} ")
        assert (new.success, split_of(new.task)) == (True, "train")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_tasks_are_of_their_split(split: str) -> None:
    assert {split_of(task) for task in make().tasks(split)} == {split}

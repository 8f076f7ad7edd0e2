"""Task sets."""

from __future__ import annotations

import random

import pytest

from understudy.environments import SPLITS, TaskSet, split_of, split_tasks
from understudy.environments.tasks import SHARES, task_sizes
from understudy.errors import ConfigError


def draw(rng: random.Random) -> dict:
    return {"n": rng.randrange(10**9)}


def test_a_task_stays_the_same_when_the_set_grows_and_is_asked_for_out_of_order() -> None:
    small, large = TaskSet(draw, split="test", size=3), TaskSet(draw, split="test", size=50)
    assert large[40] == TaskSet(draw, split="test", size=41)[-1]
    assert list(small) == large[:3]


def test_the_splits_share_the_tasks_as_declared() -> None:
    splits = [split_of({"n": n}) for n in range(20_000)]
    for split in SPLITS:
        assert splits.count(split) / len(splits) == pytest.approx(SHARES[split], abs=0.01)


def test_which_split_a_task_is_in_does_not_depend_on_the_order_of_its_keys() -> None:
    assert all(split_of({"a": n, "b": 1}) == split_of({"b": 1, "a": n}) for n in range(50))


def test_running_out_of_tasks_is_said_with_the_number_that_there_are() -> None:
    tasks = TaskSet(lambda rng: {"n": rng.randrange(20)}, split="train", size=100)
    with pytest.raises(ConfigError, match=r"the train split has 100 tasks by its settings, but only 1\d different"):
        list(tasks)


def test_a_given_list_is_split_without_loss() -> None:
    tasks = [{"n": n} for n in range(300)]
    parts = [split_tasks(tasks, split) for split in SPLITS]
    assert sorted(task["n"] for part in parts for task in part) == list(range(300))


@pytest.mark.parametrize("given", [{"tests": 3}, {"test": -1}, {"test": True}, -2, {"test": 1.5}])
def test_bad_sizes_are_refused(given: object) -> None:
    with pytest.raises(ConfigError):
        task_sizes(given)  # type: ignore[arg-type]


def test_sizes_are_one_number_or_one_for_some_splits() -> None:
    assert task_sizes(7) == dict.fromkeys(SPLITS, 7)
    assert task_sizes({"test": 2}) == {"train": 10_000, "validation": 1_000, "test": 2}

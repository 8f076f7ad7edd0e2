"""reasoning-gym's own datasets, answered and scored."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from understudy import registry
from understudy.environments import SPLITS, Observation, says
from understudy.errors import ConfigError, EnvironmentFault

from .collecting import curated
from .playing import played, said

pytest.importorskip("reasoning_gym", reason="needs pip install 'understudy[reasoning-gym]'")

SUMS = {"dataset": "chain_sum"}
DATASETS = ("chain_sum", "gcd", "countdown", "knights_knaves", "maze", "mini_sudoku", "syllogism", "tower_of_hanoi")


def made(arguments: dict[str, Any]) -> Any:
    return registry.create("environments", "reasoning_gym", arguments)


def test_a_question_is_asked_and_its_answer_scored() -> None:
    (episode,) = played("reasoning_gym", SUMS | {"instructions": "Compute."}, lambda _: says("<answer>1</answer>"), 1)
    (_, asked), (_, question), (_, answer) = said(episode)
    assert asked == "Compute."
    assert question.startswith("State the final answer to the following arithmetic problem:")
    assert answer == "<answer>1</answer>"
    assert (episode.success, episode.reward, episode.stop_reason, episode.error) == (False, 0.0, "answered", None)
    assert episode.trajectories[0].turns[0].annotations["info"]["metadata"]["source_dataset"] == "chain_sum"


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_answers_that_come_with_questions_are_right(dataset: str) -> None:
    environment = made({"dataset": dataset})

    async def play() -> None:
        for task in environment.tasks("train")[:10]:
            expert = environment.expert("agent")
            opening = await environment.reset(task)
            step = await environment.step({"agent": expert(opening.observations["agent"])})
            assert (step.rewards["agent"].value, step.success, step.terminated) == (1.0, {"agent": True}, True)

    asyncio.run(play())


def test_part_of_a_score_is_a_reward_and_a_success_only_where_that_is_asked_for() -> None:
    """Another count of letters is right in its form, and gets what the dataset gives for that."""
    for success_score, is_success in ((1.0, False), (0.01, True)):
        given = {"dataset": "countdown", "success_score": success_score}
        (episode,) = played("reasoning_gym", given, lambda _: says("<answer>1 + 1</answer>"), num=1)
        assert 0 < (episode.reward or 0) < 1
        assert episode.success is is_success


def test_what_is_no_answer_or_cannot_be_read_scores_nothing() -> None:
    (silent,) = played("reasoning_gym", SUMS, lambda _: says("It is 3."), num=1)
    assert (silent.success, silent.reward, silent.stop_reason) == (False, 0.0, "no_answer")
    factors = {"dataset": "prime_factorization"}
    (unread,) = played("reasoning_gym", factors, lambda _: says("<answer>two</answer>"), num=1)
    assert (unread.success, unread.reward, unread.error) == (False, 0.0, None)


def test_a_task_is_a_seed_that_decides_the_question() -> None:
    for dataset in ("chain_sum", "list_functions"):
        first, again = (played("reasoning_gym", {"dataset": dataset}) for _ in range(2))
        assert [said(e) for e in first] == [said(e) for e in again]
        assert len({said(e)[1] for e in first}) == len(first)


def test_no_question_is_in_two_splits_or_twice_in_one() -> None:
    environment = made({"dataset": "coin_flip"})

    async def questions(split: str) -> list[str]:
        steps = [await environment.reset(task) for task in environment.tasks(split)[:20]]
        return [step.observations["agent"].messages[1].text() for step in steps]

    found = {split: asyncio.run(questions(split)) for split in SPLITS}
    assert len({question for asked in found.values() for question in asked}) == 20 * len(SPLITS)


def test_where_questions_run_out_it_is_said() -> None:
    environment = made({"dataset": "tower_of_hanoi", "arguments": {"max_disks": 3, "max_pegs": 3}})
    with pytest.raises(ConfigError, match=r"lower num_tasks.train or make the tasks more varied"):
        environment.tasks("train")[300]


def test_a_dataset_without_answers_has_no_expert_for_them() -> None:
    environment = made({"dataset": "graph_color"})
    expert = environment.expert("agent")
    asyncio.run(environment.reset({"seed": 1}))
    with pytest.raises(Exception, match="gives none of its own"):
        expert(Observation())


def test_what_is_no_task_and_a_second_answer_are_refused() -> None:
    environment = made(SUMS)

    async def answer_twice() -> None:
        await environment.reset({"seed": 1})
        for _ in range(2):
            await environment.step({"agent": says("1")})

    with pytest.raises(EnvironmentFault, match="no task of"):
        asyncio.run(environment.reset({"question": "?"}))
    with pytest.raises(EnvironmentFault, match="reset"):
        asyncio.run(answer_twice())


def test_the_experts_answers_are_collected_and_curated(tmp_path: Path) -> None:
    settings = ("environment.name=reasoning_gym", "environment.arguments.dataset=chain_sum")
    assert [episode.reward for episode in curated(tmp_path, *settings, num=10)] == [1.0] * 10


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dataset": "chain_sums"}, "has no 'chain_sums'. Did you mean 'chain_sum'"),
        ({"dataset": "chain_sum", "arguments": {"terms": 3}}, "unexpected keyword argument 'terms'"),
        ({"dataset": "chain_sum", "arguments": {"min_terms": 9}}, "cannot make 'chain_sum'"),
        ({"dataset": "chain_sum", "arguments": {"seed": 9}}, "seed is what tasks say"),
        ({"dataset": "word_ladder"}, "set PYTHONHASHSEED=0"),
    ],
)
def test_what_cannot_be_is_refused_at_once(given: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.raises(ConfigError, match=said):
        made(given)

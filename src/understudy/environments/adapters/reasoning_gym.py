"""reasoning-gym's tasks (https://github.com/open-thought/reasoning-gym): one question, one answer, and its score.

An agent may think aloud: its answer is what stands in ``<answer>…</answer>``, as reasoning-gym's own prompts ask for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from understudy.environments.base import Expert, ExpertStuck, Observation, Reward, Step
from understudy.environments.frame import says, system, user
from understudy.environments.tasks import TaskSet
from understudy.environments.tool_environment import AGENT
from understudy.errors import ConfigError, did_you_mean
from understudy.types import JSON, Message

from .foreign import ForeignEnvironment, draw_seed, in_thread, needed, seeded, to_json

UNORDERED = ("isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder")
"""Datasets that go through sets, so that a seed gives other questions in each process (version 0.1.25)."""


class ReasoningGymEnvironment(ForeignEnvironment):
    """One agent that answers one question of a dataset of reasoning-gym.

    The reward is the dataset's score, from 0 to 1. What its scorer cannot read is no answer, and scored 0.

    Args:
        dataset: its name, such as ``chain_sum``.
        arguments: the dataset's own, such as how hard its questions are; all but ``seed`` and ``size``.
        instructions: what the agent is told at first; None for reasoning-gym's own default prompt.
        success_score: an answer with this score or a higher one is a success.
        num_tasks, task_seed: tasks are seeds; see `ForeignEnvironment`. A question is in one split only, and in a task
            set once.

    Raises:
        ConfigError: there is no such dataset, it does not take the arguments, or it is one of `UNORDERED` and Python's
            hashes differ from process to process.
        MissingDependency: reasoning-gym is not installed.
    """

    agents: tuple[str, ...] = (AGENT,)

    def __init__(
        self,
        *,
        dataset: str,
        arguments: Mapping[str, Any] | None = None,
        instructions: str | None = None,
        success_score: float = 1.0,
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
    ) -> None:
        super().__init__(tasks=None, num_tasks=num_tasks, task_seed=task_seed, max_steps=1)
        self._gym = needed("reasoning_gym", "reasoning_gym")
        known = needed("reasoning_gym.factory", "reasoning_gym").DATASETS
        if dataset not in known:
            hint = did_you_mean(dataset, known)
            raise ConfigError(f"dataset: reasoning-gym has no {dataset!r}.{hint} Known: {', '.join(sorted(known))}")
        if dataset in UNORDERED and os.environ.get("PYTHONHASHSEED", "random") == "random":
            raise ConfigError(f"{dataset} asks other things in each process; set PYTHONHASHSEED=0 in all of them")
        if own := {"seed", "size"} & set(arguments or {}):
            raise ConfigError(f"arguments: {min(own)} is what tasks say; leave it out, and give task_seed or num_tasks")
        self._dataset, self._arguments = dataset, dict(arguments or {})
        self._success_score = success_score
        utils = needed("reasoning_gym.utils", "reasoning_gym")
        self._answer_in = utils.extract_answer
        self._instructions = instructions or utils.SYSTEM_PROMPTS["default"].strip()
        self._task_sets: dict[str, TaskSet] = {}
        self._entry: dict[str, Any] | None = None
        try:
            self._scorer, _ = self._drawn(0)
        except (AssertionError, TypeError, ValueError) as error:
            raise ConfigError(f"reasoning-gym cannot make {dataset!r}: {error}") from error

    def tasks(self, split: str) -> TaskSet:
        """Return the tasks of a split: seeds whose questions belong to it."""
        if split not in self._task_sets:
            size = self._sizes.get(split, 0)
            self._task_sets[split] = TaskSet(
                draw_seed, split=split, size=size, seed=self._task_seed, identity=self._question
            )
        return self._task_sets[split]

    def expert(self, agent: str) -> Expert:
        """Return what gives the answer that comes with the question."""
        return self._decide

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        """Ask the question of a task."""
        self._scorer, entry = await in_thread(self._drawn, self.seed_of(task, seed))
        self._entry = entry
        self._num_steps = 0
        noted: dict[str, JSON] = {key: to_json(entry.get(key)) for key in ("answer", "metadata")}
        messages = (system(self._instructions), user(entry["question"]))
        return Step(observations={AGENT: Observation(messages, info=noted)}, success={AGENT: False})

    async def step(self, actions: Mapping[str, Message]) -> Step:
        """Score the answer."""
        self._count_step()
        answer = self._answer_in(actions[AGENT].text())
        score = await in_thread(self._score, answer)
        self._num_steps = None
        success = score >= self._success_score
        reason = "no_answer" if answer is None else "answered"
        rewards = {AGENT: Reward(score)}
        return Step(rewards=rewards, terminated=True, success={AGENT: success}, stop_reason=reason)

    async def close(self) -> None:
        """Let go of the question."""
        self._num_steps = None

    def _drawn(self, seed: int) -> tuple[Any, dict[str, Any]]:
        """Return the dataset that has one question of this seed, and that entry."""

        def draw() -> tuple[Any, dict[str, Any]]:
            made = self._gym.create_dataset(self._dataset, seed=seed, size=1, **self._arguments)
            return made, made[0]

        return seeded(seed, draw)

    def _question(self, task: JSON) -> JSON:
        question: str = self._drawn(self.seed_of(task, None))[1]["question"]
        return question

    def _score(self, answer: str | None) -> float:
        if answer is None:
            return 0.0
        try:
            return float(self._scorer.score_answer(answer=answer, entry=self._entry))
        except Exception:  # scorers parse the answer, and raise whatever their parsers do
            return 0.0

    def _decide(self, observation: Observation) -> Message:
        answer = None if self._entry is None else self._entry["answer"]
        if answer is None:
            raise ExpertStuck(f"{self._dataset} scores answers, and gives none of its own to this question")
        return says(f"<answer>{answer}</answer>")

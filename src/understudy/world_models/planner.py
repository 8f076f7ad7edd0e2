"""The planner: imagines what each of several actions would lead to, and takes the best.

The policy that it plans for proposes n actions. Each is played on in a dream: the world model says what is observed,
the policy acts on, until an end or so many actions. The action whose rollout ends best is taken in the real
environment, and at the next turn all begins anew, so what was imagined wrongly is not followed further.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from understudy.environments import Environment, Observation
from understudy.errors import ConfigError, PolicyError
from understudy.policies.base import Action, Context, ContextLengthExceeded, EpisodeStart, Policy, Usage
from understudy.policies.nested import component_of, make_policy
from understudy.types import JSON, Message

from .ending import CONTEXT_LENGTH, Ending, compiled
from .scorers import ImaginedRollout, Scorer, make_scorer
from .world_model import WorldModel, check_appends


@dataclass(frozen=True, slots=True)
class _Scored:
    """A rollout with its first action."""

    action: Action
    rollout: ImaginedRollout
    score: float
    usage: Usage


class PlannerPolicy(Policy):
    """Takes the best of n imagined rollouts.

    Args:
        policy: who proposes actions, and acts in what is imagined: a name, or ``{name: …, arguments: {…}}``. It has to
            draw them at random, so policy ``local`` needs a temperature.
        world_model: a model's name, or the keys of `WorldModelSettings`.
        num_rollouts: how many actions are proposed, and imagined.
        depth: most actions of a rollout, the first included.
        scorer: says how good an imagined end is: ``environment``, ``text``, or your own.
        ends: as of a dream: stop reason -> regular expression, searched in ``role: text`` of the newest message.

    Raises:
        ConfigError: an argument does not fit.
    """

    name = "planner"

    def __init__(
        self,
        policy: str | Mapping[str, Any],
        world_model: str | Mapping[str, Any],
        *,
        num_rollouts: int = 8,
        depth: int = 8,
        scorer: str | Mapping[str, Any] = "environment",
        ends: Mapping[str, str] | None = None,
    ) -> None:
        if num_rollouts < 1 or depth < 1:
            raise ConfigError(f"num_rollouts {num_rollouts} and depth {depth} are 1 or more")
        component = component_of("policy", policy)
        if component.name == "local" and num_rollouts > 1 and not component.arguments.get("temperature"):
            raise ConfigError("policy.arguments.temperature is 0: all rollouts would be the same; give it 1.0, say")
        self._policy = make_policy("policy", policy)
        self._world_model = WorldModel.of(world_model)
        self._scorer = make_scorer(scorer)
        self._num_rollouts = num_rollouts
        self._depth = depth
        self._ends = dict(ends or {})
        self._identity = {"scorer": component_of("scorer", scorer).model_dump(mode="json"), "ends": self._ends}
        compiled(self._ends)

    def identity(self) -> JSON:
        """Name policy, world model, scorer, and how far is imagined."""
        how = {"num_rollouts": self._num_rollouts, "depth": self._depth, **self._identity}
        world_model = self._world_model.identity()
        return {"name": self.name, "policy": self._policy.identity(), "world_model": world_model, **how}

    def for_episode(self, start: EpisodeStart) -> Policy:
        """Load what is needed, and plan in one episode.

        Raises:
            ConfigError: a model cannot be loaded, or the environment cannot be scored.
        """
        self._scorer.check(start.environment)
        self._world_model.load()
        imagination = _Imagination(
            policy=self._policy.for_episode(start),
            world_model=self._world_model,
            scorer=self._scorer,
            environment=start.environment,
            ending=Ending(start.environment, self._ends),
            task=start.task,
            depth=self._depth,
        )
        return _Planning(imagination, self._num_rollouts)

    async def act(self, context: Context) -> Action:
        """A planner imagines one episode's end, so this cannot be."""
        raise ConfigError("a planner plans within one episode: call for_episode first")

    async def close(self) -> None:
        """Let go of the policy and the world model."""
        await self._policy.close()
        self._world_model.let_go()


class _Planning(Policy):
    """The planner in one episode."""

    name = PlannerPolicy.name

    def __init__(self, imagination: _Imagination, num_rollouts: int) -> None:
        self._imagination = imagination
        self._num_rollouts = num_rollouts

    async def act(self, context: Context) -> Action:
        """Imagine, and take the action whose rollout ends best.

        Of equal scores that action is taken with which most of them begin, then that of the shortest rollout.

        Raises:
            ConfigError: the environment rebuilds the prompt each turn.
        """
        check_appends(context.observation)
        seeds = [_seed(context.seed, "rollout", number) for number in range(self._num_rollouts)]
        scored = await _all_of([self._imagination.play_on(context, seed) for seed in seeds])
        best = max(one.score for one in scored)
        equals = [one for one in scored if one.score == best]
        votes = Counter(_key(one.action.message) for one in equals)
        chosen = min(equals, key=lambda one: (-votes[_key(one.action.message)], one.rollout.num_actions))
        planning = {
            "scores": [one.score if math.isfinite(one.score) else None for one in scored],
            "chosen": scored.index(chosen),
            "num_actions": len({_key(one.action.message) for one in scored}),
        }
        annotations = chosen.action.annotations | {"planning": planning}
        return replace(chosen.action, usage=_total([one.usage for one in scored]), annotations=annotations)


@dataclass(frozen=True, slots=True)
class _Imagination:
    """All that a rollout is imagined with."""

    policy: Policy
    world_model: WorldModel
    scorer: Scorer
    environment: Environment
    ending: Ending
    task: JSON
    depth: int

    async def play_on(self, context: Context, seed: int) -> _Scored:
        """Play on from where the real episode is, and score the end."""
        usages: list[Usage | None] = []
        first: Action | None = None
        now, stop_reason = replace(context, seed=_seed(seed, "action", 0)), None
        messages = context.messages
        num_actions = 0
        try:
            while stop_reason is None and num_actions < self.depth:
                action = await self.policy.act(now)
                first = first or action
                usages.append(action.usage)
                messages = (*messages, action.message)
                num_actions += 1
                stop_reason = self.ending.read(self.task, messages).stop_reason
                if stop_reason is not None:
                    break
                imagined = await self.world_model.observe(messages, now.tools, _seed(seed, "observation", num_actions))
                usages.append(imagined.usage)
                messages += imagined.messages
                stop_reason = self.ending.read(self.task, messages).stop_reason
                now = Context(
                    messages=messages,
                    tools=now.tools,
                    observation=Observation(imagined.messages),
                    turn=now.turn + 1,
                    seed=_seed(seed, "action", num_actions),
                )
        except ContextLengthExceeded:
            if first is None:  # not even the real conversation leaves room
                raise
            stop_reason = CONTEXT_LENGTH
        num_imagined = len(messages) - len(context.messages)
        rollout = ImaginedRollout(messages, context.tools, self.task, num_imagined, num_actions, stop_reason)
        try:
            score = await self.scorer.score(rollout, self.environment, self.world_model)
        except ContextLengthExceeded:  # what was imagined has filled the context: that is no end of the real episode
            score = -math.inf
        if math.isnan(score):
            raise PolicyError("the scorer gave no number (nan) for a rollout, so none can be the best")
        assert first is not None
        return _Scored(first, rollout, score, _total(usages))


async def _all_of(rollouts: Sequence[Coroutine[Any, Any, _Scored]]) -> list[_Scored]:
    """Return the rollouts. All of them finish before a fault of one ends the episode: none is imagined on after it."""
    scored = []
    for result in await asyncio.gather(*rollouts, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        scored.append(result)
    return scored


def _key(message: Message) -> str:
    """Return what two equal actions have in common, whatever their calls are numbered by."""
    calls = [(call.name, call.arguments_text()) for call in message.tool_calls]
    return repr((message.text(), calls))


def _total(usages: Sequence[Usage | None]) -> Usage:
    """Return the sum of what is known; a count that one does not know is unknown."""

    def total(name: str) -> int | None:
        counts = [None if usage is None else getattr(usage, name) for usage in usages]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    return Usage(total("prompt_tokens"), total("completion_tokens"))


def _seed(seed: int, what: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{what}/{number}".encode()).digest()[:8], "big") >> 1

"""Hindsight: what failed at its own task as a success at another (Andrychowicz et al. 2017, arXiv:1707.01495).

An environment says which tasks an episode's actions may have solved. Here the actions are played again under such a
task, so every message of the new episode is what the agent would have read, and success is what the environment says.
A task of another split is never taken, and of an episode of no known split none that is held out: training on it would
leak it.

That is honest only where the agent is told its goal, as it is in `grid`, `math` and `tools`. Where the goal is hidden
(as in `function_gym`), a lucky guess would be shown as if the agent could have known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from understudy.errors import EnvironmentFault
from understudy.types import JSON, ORIGIN, Episode, Message, Trajectory, Turn

from .base import Observation, Reward, Step
from .tasks import split_of
from .tool_environment import AGENT, ToolEnvironment


def hindsight(environment: ToolEnvironment[Any], episode: Episode, tasks: Iterable[JSON]) -> list[Episode]:
    """Return the episode as a success at the first of some tasks that its actions solve; empty where they solve none.

    Args:
        environment: is left as it is.
        episode: of this environment.
        tasks: the candidates, best first.
    """
    saved = environment.snapshot()
    try:
        for task in tasks:
            if split_of(task) == (episode.split or "train"):
                found = _played_again(environment, episode, task)
                if found is not None:
                    return [found]
    finally:
        environment.restore(saved)
    return []


def states_of(environment: ToolEnvironment[Any], episode: Episode) -> list[Any]:
    """Return copies of the states that an episode went through: at its beginning and after each action.

    Raises:
        EnvironmentFault: it is no episode of this environment.
    """
    saved = environment.snapshot()
    try:
        environment.open(episode.task, episode.seed)
        states = [environment.snapshot().state]
        for action in actions_of(episode):
            if environment.take(action).is_over:
                break
            states.append(environment.snapshot().state)
        else:
            return states
        return [*states, environment.snapshot().state]
    finally:
        environment.restore(saved)


def actions_of(episode: Episode) -> list[Message]:
    """Return what the agent did, in order."""
    return [turn.action for turn in _happened(episode) if turn.action is not None]


def _happened(episode: Episode) -> list[Turn]:
    if len(episode.trajectories) != 1:
        raise EnvironmentFault(f"episode {episode.id} has {len(episode.trajectories)} trajectories, and one is needed")
    return [turn for turn in episode.trajectories[0].turns if not turn.is_label]


def _played_again(environment: ToolEnvironment[Any], episode: Episode, task: JSON) -> Episode | None:
    """Return what the actions come to under another task; None where they do not solve it."""
    step = environment.open(task, episode.seed)
    turns: list[Turn] = []
    for action in actions_of(episode):
        if step.is_over:
            break
        turns.append(replace(_turn(turns, step.observations[AGENT]), action=action))
        step = environment.take(action)
        turns[-1] = replace(turns[-1], reward=_reward(step))
    if not step.is_over or not (step.success or {}).get(AGENT):
        return None
    if AGENT in step.observations:
        turns.append(_turn(turns, step.observations[AGENT]))
    total = sum(turn.reward or 0.0 for turn in turns)
    trajectory = Trajectory(tuple(turns), AGENT, episode.trajectories[0].policy, total, True)
    return replace(
        episode,
        id=f"{episode.id}-hindsight",
        trajectories=(trajectory,),
        task=task,
        reward=total,
        success=True,
        stop_reason=step.stop_reason,
        metadata=episode.metadata | {ORIGIN: episode.id},
    )


def _turn(turns: list[Turn], observation: Observation) -> Turn:
    """Return the turn that begins with an observation. A prompt that replaces the old one begins a new root."""
    is_root = not turns or observation.mode == "replace"
    tools = observation.tools if observation.tools is not None else turns[0].tools
    return Turn(
        parent=None if is_root else len(turns) - 1, observation=observation.messages, tools=tools if is_root else ()
    )


def _reward(step: Step) -> float | None:
    found = step.rewards.get(AGENT)
    rewards = [found] if isinstance(found, Reward) else list(found or ())
    return sum(reward.value for reward in rewards) if rewards else None

"""Write down one agent's trajectory while it happens.

Invariant: joining the observations and actions from a root turn down gives exactly the messages that the policy was
shown. So what a policy sees is taken from here, and cannot differ from what is recorded.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any

from understudy.environments import Observation, Reward
from understudy.errors import EnvironmentFault
from understudy.policies import Action
from understudy.types import JSON, Message, SampledTokens, Tool, Trajectory, Turn


@dataclass(slots=True)
class _Draft:
    """A turn that may still get a reward, or a label, which gets none."""

    parent: int | None
    observation: tuple[Message, ...]
    tools: tuple[Tool, ...]
    action: Message | None = None
    reward: float | None = None
    weight: float = 1.0
    sampled: SampledTokens | None = None
    annotations: dict[str, JSON] = field(default_factory=dict)

    @property
    def is_label(self) -> bool:
        return "label_of" in self.annotations


class Recorder:
    """The trajectory of one agent, as it grows.

    Attributes:
        messages: the conversation as the agent sees it now.
        tools: the tools that it has now.
        num_actions: how many actions it has taken.
    """

    def __init__(self, agent: str, policy: str) -> None:
        self.agent = agent
        self.policy = policy
        self.messages: tuple[Message, ...] = ()
        self.tools: tuple[Tool, ...] = ()
        self.num_actions = 0
        self._drafts: list[_Draft] = []
        self._now: int | None = None  # the latest turn that happened
        self._reward_before_acting = 0.0
        self._is_rewarded = False
        self.success: bool | None = None

    def observe(self, observation: Observation) -> None:
        """Begin a turn. Other tools, or a prompt that replaces the old one, begin a new root."""
        tools = self.tools if observation.tools is None else observation.tools
        starts_afresh = not self._drafts or observation.mode == "replace" or tools != self.tools
        if starts_afresh and observation.mode == "append":
            shown = self.messages + observation.messages
        else:
            shown = observation.messages
        parent = None if starts_afresh else self._now
        self._now = len(self._drafts)
        self._drafts.append(_Draft(parent, shown, tools if starts_afresh else ()))
        self.tools = tools
        self.messages = shown if starts_afresh else self.messages + shown
        annotations = self._drafts[-1].annotations
        if observation.info:
            annotations["info"] = deepcopy(observation.info)
        if observation.legal_actions is not None:
            annotations["legal_actions"] = list(observation.legal_actions)

    def act(self, action: Action) -> None:
        """Close the turn with its action. A label that says something else becomes a sibling of the turn."""
        assert self._now is not None, "observe comes first"
        draft = self._drafts[self._now]
        draft.action = action.message
        draft.sampled = action.sampled
        draft.annotations.update(action.annotations)
        if action.usage is not None:
            usage = {name: count for name, count in asdict(action.usage).items() if count is not None}
            draft.annotations["usage"] = usage
        if action.label is not None:
            self._label(draft, self._now, action.label)
        elif action.is_context:
            draft.weight = 0.0
        self.messages += (action.message,)
        self.num_actions += 1

    def _label(self, draft: _Draft, index: int, label: Message) -> None:
        """Write down what should have been done in a turn, and whether it was."""
        agrees = draft.action is not None and _is_same(draft.action, label)
        draft.annotations["agrees"] = agrees
        if not agrees:
            draft.weight = 0.0
            labelled = _Draft(draft.parent, draft.observation, draft.tools, label, annotations={"label_of": index})
            self._drafts.append(labelled)

    def reward(self, reward: Reward) -> None:
        """Add a reward to the action that it is for. One that comes before any action counts for the whole only.

        Raises:
            EnvironmentFault: it names an action that was not taken, or is no finite number.
        """
        given = finite_number(reward.value, f"a reward of agent {self.agent!r}")
        self._is_rewarded = True
        acted = [draft for draft in self._drafts if draft.action is not None and not draft.is_label]
        if reward.turn is not None and not 0 <= reward.turn < len(acted):
            raise EnvironmentFault(
                f"a reward names action {reward.turn} of agent {self.agent!r}, who has taken {len(acted)}"
            )
        if not acted:
            self._reward_before_acting += given
            return
        draft = acted[-1 if reward.turn is None else reward.turn]
        draft.reward = (draft.reward or 0.0) + given
        if reward.components:
            components = draft.annotations.setdefault("reward_components", {})
            for name, value in reward.components.items():
                component = finite_number(value, f"reward component {name!r} of agent {self.agent!r}")
                components[name] = components.get(name, 0.0) + component

    def trajectory(self, *, is_faulty: bool) -> Trajectory:
        """Return what was recorded.

        Args:
            is_faulty: the episode ended by a fault, so its reward and success are unknown.
        """
        turns = tuple(
            Turn(
                parent=draft.parent,
                observation=draft.observation,
                action=draft.action,
                tools=draft.tools,
                reward=draft.reward,
                weight=draft.weight,
                sampled=draft.sampled,
                annotations=draft.annotations,
            )
            for draft in self._drafts
        )
        total = self._reward_before_acting + sum(draft.reward or 0.0 for draft in self._drafts)
        return Trajectory(
            turns,
            agent=self.agent,
            policy=self.policy,
            reward=total if self._is_rewarded and not is_faulty else None,
            success=None if is_faulty else self.success,
        )


def finite_number(value: Any, what: str) -> float:
    """Return a number of an environment as one that can be written: theirs are often NumPy's.

    Raises:
        EnvironmentFault: it is no finite number.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise EnvironmentFault(f"{what} is {value!r}, which is no finite number")
    return number


def truth(value: Any, what: str) -> bool | None:
    """Return a success as an environment says it: true, false, or None where it is unknown.

    Raises:
        EnvironmentFault: it is something else.
    """
    if value is None:
        return None
    if value not in (True, False):
        raise EnvironmentFault(f"{what} is {value!r}, which is neither true nor false nor unknown (None)")
    return bool(value)


def _is_same(action: Message, label: Message) -> bool:
    """Return whether two actions say and call the same; what their calls are numbered by says nothing."""
    return _without_ids(action) == _without_ids(label)


def _without_ids(message: Message) -> tuple[Any, ...]:
    calls: list[tuple[str, Any]] = []
    for call in message.tool_calls:
        try:
            calls.append((call.name, call.parsed_arguments()))
        except ValueError:
            calls.append((call.name, call.arguments))
    return message.role, message.content or "", message.reasoning_content or "", calls

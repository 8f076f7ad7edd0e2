"""The frame of environments in which several agents act, in turns or at once.

Who acts when is the `turn_order`: one group of agents after the other, over and over. The agents of a group act at
once, so none of them sees what the others are just doing. An agent's turn lasts until it says something: while it calls
tools it gets their results and acts again.

Who sees what: an agent observes what was put before it with `tell`, and nothing else. What comes in while others act
waits until it is the agent's turn. What agents of a group say waits until all of the group have ended their turn: who
calls tools does not hear the others before it has spoken itself.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, TypeVar

from understudy.errors import ConfigError, EnvironmentFault, did_you_mean
from understudy.types import JSON, Message

from .base import Expert, Observation, Reward, Step
from .frame import NO_EPISODE, TaskEnvironment, user
from .toolbox import Toolbox, call_all

Group = tuple[str, ...]
TurnOrder = Sequence[str | Sequence[str]]
"""As users write it: names of agents, or lists of names that act at once."""

NOTHING_NEW = "It is your turn."

State = TypeVar("State")


@dataclass(slots=True)
class _Play(Generic[State]):
    """An episode under way.

    `acting` are those of the present group who have not yet ended their turn; `turn` counts groups from 0. `inboxes`
    hold what agents have not yet observed, `held_back` what those who still act may not hear in this turn, and
    `has_begun` who has observed anything, and so has been given its tools. `speaking` is whose action is being taken.
    """

    state: State
    inboxes: dict[str, list[Message]]
    acting: Group = ()
    turn: int = -1
    num_steps: int = 0
    stop_reason: str | None = None
    has_begun: set[str] = field(default_factory=set)
    held_back: list[tuple[str, Message]] = field(default_factory=list)
    speaking: str | None = None

    def let_hear(self) -> None:
        """Put what was held back before those whom it is for."""
        for agent, message in self.held_back:
            _put(self.inboxes[agent], message)
        self.held_back = []


class MultiAgentEnvironment(TaskEnvironment[_Play[State]], Generic[State]):
    """Several agents, each with what it sees, its tools, its reward and its success.

    Args:
        turn_order: who acts when; None for the environment's own order.
        num_tasks, task_seed, max_steps: see `TaskEnvironment`; a step is one action of each agent that is to act.

    Raises:
        ConfigError: the order names an agent that there is none of, or leaves one out.
    """

    agents: tuple[str, ...]
    default_turn_order: TurnOrder

    def __init__(
        self,
        *,
        turn_order: TurnOrder | None = None,
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
        max_steps: int | None = None,
    ) -> None:
        super().__init__(num_tasks=num_tasks, task_seed=task_seed, max_steps=max_steps)
        self.turn_order = _checked_order(self.default_turn_order if turn_order is None else turn_order, self.agents)
        self.toolboxes = {agent: self.make_toolbox(agent) for agent in self.agents}

    @abstractmethod
    def begin(self, task: Any) -> tuple[State, Mapping[str, Sequence[Message]]]:
        """Return the state in which a task begins, and the messages that open it for each agent."""

    @abstractmethod
    def on_text(self, agent: str, text: str) -> None:
        """React to what an agent says: `tell` others, change the state, or `finish` the episode."""

    @abstractmethod
    def is_success(self, agent: str) -> bool | None:
        """Say whether the agent would count as successful if the episode ended now; None where that is unknown."""

    @abstractmethod
    def rewards(self, is_over: bool) -> dict[str, Reward]:
        """Return the rewards of this step."""

    @abstractmethod
    def decide(self, agent: str, observation: Observation) -> Message:
        """Return what the expert does as this agent in the present state."""

    def make_toolbox(self, agent: str) -> Toolbox:
        """Return the tools of an agent; none by default."""
        return Toolbox()

    def group(self, turn: int) -> Group:
        """Return who acts in the turn of this number, counted from 0."""
        return self.turn_order[turn % len(self.turn_order)]

    async def conclude(self) -> None:
        """Judge an episode that is over, before rewards and success are asked for; by default there is nothing to do.

        What is raised here is a fault of the judge, and no agent's failure.
        """

    @property
    def state(self) -> State:
        """The state of the episode under way.

        Raises:
            EnvironmentFault: there is none.
        """
        return self._under_way.state

    @property
    def turn(self) -> int:
        """The number of the present turn, counted from 0. Agents that act at once share one."""
        return self._under_way.turn

    def tell(self, agent: str, text: str) -> None:
        """Let an agent observe a text when it acts next, or at the end; within its own group, in its next turn."""
        play = self._under_way
        if play.speaking not in (None, agent) and agent in play.acting:
            play.held_back.append((agent, user(text)))
        else:
            _put(play.inboxes[agent], user(text))

    def expert(self, agent: str) -> Expert:
        """Return the expert of an agent."""
        return partial(self.decide, agent)

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        """Start an episode of `task`, or of one that is drawn from the seed."""
        state, openings = self._opened(self.begin, task, seed)
        self._play = _Play(state, {agent: [] for agent in self.agents})
        for agent, messages in openings.items():
            for message in messages:
                _put(self._play.inboxes[agent], message)
        return Step(observations=self._next_turn(self._play), success=self._successes())

    async def step(self, actions: Mapping[str, Message]) -> Step:
        """Take one action of each agent that is to act."""
        play = self._next_step()
        if set(actions) != set(play.acting):
            raise EnvironmentFault(f"{', '.join(play.acting)} are to act, not {', '.join(actions) or 'nobody'}")
        acted, play.acting = play.acting, tuple(agent for agent in play.acting if actions[agent].tool_calls)
        # All results come in before anything that is said, because nothing may stand between a call and its result.
        for agent in play.acting:
            play.speaking = agent
            play.inboxes[agent] += call_all(
                self.toolboxes[agent], actions[agent], is_over=lambda: play.stop_reason is not None
            )
        for agent in acted:
            if agent not in play.acting:
                play.speaking = agent
                self.on_text(agent, actions[agent].text())
        play.speaking = None
        is_truncated = self._truncate(play)
        is_over = play.stop_reason is not None
        if is_over or not play.acting:
            play.let_hear()
        if is_over:
            await self.conclude()
        return Step(
            observations=self._farewells(play) if is_over else self._next_turn(play),
            rewards=self.rewards(is_over),
            terminated=is_over and not is_truncated,
            truncated=is_truncated,
            success=self._successes(),
            stop_reason=play.stop_reason,
        )

    @property
    def _under_way(self) -> _Play[State]:
        if self._play is None:
            raise EnvironmentFault(NO_EPISODE)
        return self._play

    def _successes(self) -> dict[str, bool | None]:
        return {agent: self.is_success(agent) for agent in self.agents}

    def _next_turn(self, play: _Play[State]) -> dict[str, Observation]:
        """Return what those observe who act next."""
        if not play.acting:
            play.turn += 1
            play.acting = self.group(play.turn)
        for agent in play.acting:
            if not play.inboxes[agent]:
                self.tell(agent, NOTHING_NEW)
        return {agent: self._observation(play, agent) for agent in play.acting}

    def _farewells(self, play: _Play[State]) -> dict[str, Observation]:
        """Return what agents still observe at the end."""
        return {agent: self._observation(play, agent) for agent in self.agents if play.inboxes[agent]}

    def _observation(self, play: _Play[State], agent: str) -> Observation:
        observation = Observation(tuple(play.inboxes[agent]))
        play.inboxes[agent] = []
        if agent not in play.has_begun:
            play.has_begun.add(agent)
            observation = replace(observation, tools=self.toolboxes[agent].tools)
        return observation


def _put(inbox: list[Message], message: Message) -> None:
    """Add a message. Two user messages in a row become one, because many chat templates take no two."""
    if inbox and inbox[-1].role == message.role == "user":
        inbox[-1] = user(f"{inbox[-1].text()}\n{message.text()}")
    else:
        inbox.append(message)


def _checked_order(given: TurnOrder, agents: Group) -> tuple[Group, ...]:
    groups = tuple((group,) if isinstance(group, str) else tuple(group) for group in given)
    named = [agent for group in groups for agent in group]
    for agent in named:
        if agent not in agents:
            raise ConfigError(f"turn_order: there is no agent {agent!r}.{did_you_mean(agent, agents)} Known: "
                              f"{', '.join(agents)}")  # fmt: skip
    if missing := [agent for agent in agents if agent not in named]:
        raise ConfigError(f"turn_order: agent {missing[0]!r} never acts; name all of {', '.join(agents)}")
    if any(len(set(group)) != len(group) or not group for group in groups):
        raise ConfigError("turn_order: a group names each of its agents once, and one at least")
    return groups

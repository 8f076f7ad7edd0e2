"""Conversations into turns: one conversation is a chain; several calls of one policy share what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from understudy.types import Message, Tool, Trajectory, Turn

from .messages import Entry


@dataclass(slots=True)
class _Step:
    """What is observed before an action, and the action; None at the end of a conversation that ends unanswered."""

    observation: tuple[Message, ...]
    action: Entry | None


def chain(entries: Sequence[Entry], tools: tuple[Tool, ...]) -> tuple[Turn, ...]:
    """Return the turns of one linear conversation. What no assistant message follows becomes a closing observation."""
    steps = _steps(entries)
    return tuple(_turn(step, k - 1 if k else None, tools) for k, step in enumerate(steps))


def tree(conversations: Sequence[Sequence[Entry]], tools: tuple[Tool, ...]) -> tuple[Turn, ...]:
    """Return the turns of several calls of one policy, each with its whole conversation.

    Equal beginnings are joined turn by turn, so every call's messages can be read back along its lineage. Only the last
    assistant message of a call is what that call wrote: others that no call wrote have weight 0.
    """
    grown = _Tree(tools)
    for conversation in conversations:
        grown.add(_steps(conversation))
    return grown.finish()


def by_agent(
    entries: Sequence[Entry], tools: tuple[Tool, ...], observed: frozenset[str], system: dict[str, str]
) -> tuple[Trajectory, ...]:
    """Return a trajectory for each agent that speaks, in the order in which they first do.

    An agent's own messages are its actions; it observes all others as user messages with the speaker's name.
    """
    agents = dict.fromkeys(e.speaker for e in entries if e.speaker is not None and e.speaker not in observed)
    trajectories = []
    for agent in agents:
        prompt = [Entry(Message("system", system[agent]))] if agent in system else []
        seen = [*prompt, *(_as_seen_by(agent, entry) for entry in entries)]
        trajectories.append(Trajectory(chain(seen, tools), agent=agent))
    return tuple(trajectories)


def _as_seen_by(agent: str, entry: Entry) -> Entry:
    if entry.speaker is None:
        return entry
    if entry.speaker == agent:
        return replace(entry, message=replace(entry.message, role="assistant", name=agent))
    return Entry(replace(entry.message, role="user", name=entry.speaker))


def _steps(entries: Sequence[Entry]) -> list[_Step]:
    steps: list[_Step] = []
    observed: list[Message] = []
    for entry in entries:
        if entry.message.role == "assistant":
            steps.append(_Step(tuple(observed), entry))
            observed = []
        else:
            observed.append(entry.message)
    if observed:
        steps.append(_Step(tuple(observed), None))
    return steps


def _turn(step: _Step, parent: int | None, tools: tuple[Tool, ...]) -> Turn:
    root_tools = tools if parent is None else ()
    if step.action is None:
        return Turn(parent, step.observation, tools=root_tools)
    action = step.action
    weight = 1.0 if action.weight is None else action.weight
    return Turn(
        parent,
        step.observation,
        action.message,
        root_tools,
        reward=action.reward,
        weight=weight,
        sampled=action.sampled,
    )


@dataclass(slots=True)
class _Tree:
    tools: tuple[Tool, ...]
    turns: list[Turn] = field(default_factory=list)
    children: dict[int | None, list[int]] = field(default_factory=dict)
    written: set[int] = field(default_factory=set)  # turns whose action a call wrote
    closings: list[tuple[int | None, _Step]] = field(default_factory=list)

    def add(self, steps: list[_Step]) -> None:
        parent: int | None = None
        last: int | None = None
        for step in steps:
            if step.action is None:
                self.closings.append((parent, step))
                break
            parent = last = self._child(parent, step)
        if last is not None:
            self.written.add(last)

    def _child(self, parent: int | None, step: _Step) -> int:
        """Return the turn below `parent` that equals `step`, made where there is none."""
        turn = _turn(step, parent, self.tools)
        for index in self.children.get(parent, ()):
            known = self.turns[index]
            if known.observation == turn.observation and known.action == turn.action:
                return index
        self.turns.append(turn)
        self.children.setdefault(parent, []).append(len(self.turns) - 1)
        return len(self.turns) - 1

    def finish(self) -> tuple[Turn, ...]:
        turns = [turn if k in self.written else replace(turn, weight=0.0) for k, turn in enumerate(self.turns)]
        seen = {parent: [turns[k].observation for k in below] for parent, below in self.children.items()}
        for parent, step in sorted(self.closings, key=lambda closing: -len(closing[1].observation)):
            known = seen.setdefault(parent, [])
            if not any(observation[: len(step.observation)] == step.observation for observation in known):
                known.append(step.observation)
                turns.append(_turn(step, parent, self.tools))
        return tuple(turns)

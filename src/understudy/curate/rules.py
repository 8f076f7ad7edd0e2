"""The rules of a curation. Each one takes the episodes that are left and says what it keeps, and why not the others.

Rules look at summaries and not at episodes, so a curation holds a few hundred bytes for each episode and reads the data
twice instead.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

from understudy.types import JSON, ORIGIN, Episode, Message, ToolCall, Trajectory

from .config import CurateConfig
from .split import held_out_tasks

Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the rules need to know of an episode.

    Args:
        index: where it stands in the data, from 0.
        id: its own.
        origin: the id of the failed episode that it is in hindsight; None of one that was played.
        task: stands for its task: equal for all plays of one task.
        content: stands for all that its agents saw and did.
        agents, agent_successes: of each trajectory.
        trajectories: which of them are kept, by their positions in the episode.
        num_characters, num_tokens: of the longest conversation; tokens are 0 where nobody counts them.
    """

    index: int
    id: str
    origin: str | None
    task: str
    content: str
    has_error: bool
    success: bool | None
    agents: tuple[str, ...]
    agent_successes: tuple[bool | None, ...]
    trajectories: tuple[int, ...]
    reward: float | None
    num_turns: int
    num_characters: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class AgentCount:
    """How many trajectories of an agent there were before a rule, and how many it kept."""

    num_before: int
    num_kept: int


@dataclass(frozen=True, slots=True)
class RuleReport:
    """What a rule did.

    Args:
        rule: its name.
        num_before, num_kept: episodes.
        reasons: for each reason, how many episodes it left out.
        agents: what it did to each agent's trajectories; empty where the data has one agent only.
    """

    rule: str
    num_before: int
    num_kept: int
    reasons: dict[str, int] = field(default_factory=dict)
    agents: dict[str, AgentCount] = field(default_factory=dict)


Verdict = Candidate | str
"""What is kept of a candidate: all or some of its trajectories; or why it is left out."""


class Rule(Protocol):
    """Parts candidates into those that are kept and reasons why the others are not."""

    @property
    def name(self) -> str:
        """As in the config and in reports."""
        ...

    def apply(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        """Return a verdict for each candidate."""
        ...


def summarise(episode: Episode, index: int, encode: Encode | None = None) -> Candidate:
    """Return what the rules need to know of an episode."""
    texts = [_texts(trajectory) for trajectory in episode.trajectories]
    origin = episode.metadata.get(ORIGIN)
    return Candidate(
        index=index,
        id=episode.id,
        origin=origin if isinstance(origin, str) else None,
        task=task_of(episode),
        content=_content(episode),
        has_error=episode.error is not None,
        success=episode.success,
        agents=tuple(trajectory.agent for trajectory in episode.trajectories),
        trajectories=tuple(range(len(episode.trajectories))),
        agent_successes=tuple(agent_success(episode, trajectory) for trajectory in episode.trajectories),
        reward=episode.reward,
        num_turns=episode.num_actions(),
        num_characters=max((sum(map(len, one)) for one in texts), default=0),
        num_tokens=0 if encode is None else max((sum(len(encode(t)) for t in one) for one in texts), default=0),
    )


def task_of(episode: Episode) -> str:
    """Return what stands for an episode's task: environment and task; else environment and seed; else its own id."""
    which = episode.task if episode.task is not None else episode.seed
    if which is None:
        return episode.id
    text = json.dumps([episode.environment, which], sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def agent_success(episode: Episode, trajectory: Trajectory) -> bool | None:
    """Return an agent's own success. The episode's stands in for that of its only agent."""
    return episode.success if trajectory.success is None and len(episode.trajectories) == 1 else trajectory.success


def _texts(trajectory: Trajectory) -> list[str]:
    """Return the texts of the trajectory's longest conversation."""
    conversations = [trajectory.messages(leaf) for leaf in trajectory.leaves()]
    found = [
        [text for m in messages for text in (m.reasoning_content or "", m.text(), *_call_texts(m.tool_calls)) if text]
        for messages in conversations
    ]
    return max(found, key=lambda texts: sum(map(len, texts)), default=[])


def _call_texts(calls: Iterable[ToolCall]) -> list[str]:
    return [text for call in calls for text in (call.name, call.arguments_text())]


def _content(episode: Episode) -> str:
    """Return a hash of what the agents saw and did. The ids of tool calls are left out: they say nothing."""
    turns = [
        (
            trajectory.agent,
            turn.parent,
            [_said(message) for message in turn.observation],
            _said(turn.action) if turn.action is not None else None,
            [tool.definition for tool in turn.tools],
        )
        for trajectory in episode.trajectories
        for turn in trajectory.turns
    ]
    text = json.dumps(turns, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _said(message: Message) -> list[JSON]:
    content = message.content
    parts = content if content is None or isinstance(content, str) else [asdict(part) for part in content]
    calls = [(call.name, call.arguments) for call in message.tool_calls]
    return [message.role, message.name, message.reasoning_content, parts, calls]


@dataclass(frozen=True, slots=True)
class Each:
    """A rule that judges every episode by itself: `judge` says why it is left out."""

    name: str
    judge: Callable[[Candidate], str | None]

    def apply(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        return [self.judge(candidate) or candidate for candidate in candidates]


class OnlySuccessfulAgents:
    """Keeps the trajectories of agents that succeeded."""

    name = "only_success"

    def apply(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        return [self._judge(candidate) for candidate in candidates]

    def _judge(self, candidate: Candidate) -> Verdict:
        successes = [candidate.agent_successes[i] for i in candidate.trajectories]
        kept = tuple(i for i in candidate.trajectories if candidate.agent_successes[i])
        if kept:
            return replace(candidate, trajectories=kept)
        return "success is unknown" if None in successes else "all agents failed"


class Deduplicate:
    """Keeps the first of equal episodes."""

    name = "deduplicate"

    def apply(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        seen: set[str] = set()
        out: list[Verdict] = []
        for candidate in candidates:
            out.append("the same as an earlier one" if candidate.content in seen else candidate)
            seen.add(candidate.content)
        return out


@dataclass(frozen=True, slots=True)
class BestOfN:
    """Keeps the best few episodes of each task."""

    num: int
    name: str = "best_of_n"

    def apply(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        by_task: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            by_task.setdefault(candidate.task, []).append(candidate)
        best = {c.index for group in by_task.values() for c in sorted(group, key=_best_first)[: self.num]}
        reason = f"not among the best {self.num} of its task"
        return [candidate if candidate.index in best else reason for candidate in candidates]


@dataclass(frozen=True, slots=True)
class MaxTrajectories:
    """Keeps so many episodes, drawn at random."""

    num: int
    seed: int
    name: str = "max_trajectories"

    def apply(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        drawn = set(range(len(candidates)))
        if len(candidates) > self.num:
            drawn = set(random.Random(self.seed).sample(range(len(candidates)), self.num))
        return [candidate if i in drawn else "not drawn" for i, candidate in enumerate(candidates)]


@dataclass(frozen=True, slots=True)
class ReplayBuffer:
    """Keeps so many of the newest episodes: of those that are held out their share, and of the others the rest."""

    num: int
    validation_split: float
    seed: int
    name: str = "replay_buffer_size"

    def apply(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        held_out = held_out_tasks(candidates, self.validation_split, self.seed)
        num_held_out = max(1, round(self.num * self.validation_split)) if held_out else 0
        room = {True: num_held_out, False: max(1, self.num - num_held_out)}
        out: list[Verdict] = []
        for candidate in reversed(candidates):
            side = candidate.task in held_out
            out.append(candidate if room[side] > 0 else "older than those that fit")
            room[side] -= 1
        return out[::-1]


@dataclass(frozen=True, slots=True)
class AgentRatios:
    """Balances the agents' trajectories.

    With ``s`` the smallest ``available / ratio`` over the agents that have both, an agent keeps ``ratio * s`` of its
    trajectories, rounded down, and one at least: the most that the ratios allow. So no agent loses all that it has
    unless its ratio is 0.
    """

    ratios: Mapping[str, float]
    seed: int
    name: str = "agent_ratios"

    def apply(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        places: dict[str, list[tuple[int, int]]] = {}
        for position, candidate in enumerate(candidates):
            for i in candidate.trajectories:
                places.setdefault(candidate.agents[i], []).append((position, i))
        scale = min((len(p) / self.ratios[a] for a, p in places.items() if self.ratios[a]), default=0.0)
        drawn: set[tuple[int, int]] = set()
        for agent, available in places.items():
            ratio = self.ratios[agent]
            # A little is added because a product that should be whole may come out just below.
            num = min(len(available), max(1, int(ratio * scale + 1e-9))) if ratio else 0
            seed = f"{self.seed}/{agent}".encode(errors="surrogatepass")  # names may have half of a UTF-16 pair
            drawn.update(random.Random(seed).sample(available, num))
        out: list[Verdict] = []
        for position, candidate in enumerate(candidates):
            kept = tuple(i for i in candidate.trajectories if (position, i) in drawn)
            out.append(replace(candidate, trajectories=kept) if kept else "none of its trajectories is drawn")
        return out


@dataclass(frozen=True, slots=True)
class BesideOrigin:
    """Leaves out what was added in hindsight where its task is held out and the failed episode's is not, or the other
    way round: its actions would stand on both sides of the split."""

    validation_split: float
    seed: int
    name: str = "validation_split"

    def apply(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        held_out = held_out_tasks(candidates, self.validation_split, self.seed)
        sides = {candidate.id: candidate.task in held_out for candidate in candidates}
        out: list[Verdict] = []
        for candidate in candidates:
            side = candidate.task in held_out
            is_apart = candidate.origin is not None and sides.get(candidate.origin, side) != side
            out.append("its failed episode is on the other side" if is_apart else candidate)
        return out


def rules_of(config: CurateConfig) -> list[Rule]:
    """Return the rules that a config asks for, in the order in which they are applied."""
    rules: list[Rule] = []
    if config.drop_errors:
        rules.append(Each("drop_errors", lambda c: "ended by a fault" if c.has_error else None))
    if config.only_success:
        rules.append(Each("only_success", _env_success) if config.success_of == "env" else OnlySuccessfulAgents())
    if (least := config.min_reward_threshold) is not None:
        rules.append(Each("min_reward_threshold", lambda c: _reward(c, least)))
    if (fewest := config.min_turns) is not None:
        rules.append(Each("min_turns", lambda c: f"fewer than {fewest} turns" if c.num_turns < fewest else None))
    limits = (("max_turns", "num_turns"), ("max_characters", "num_characters"), ("max_tokens", "num_tokens"))
    for name, count in limits:
        most = getattr(config, name)
        if most is not None:
            rules.append(Each(name, _at_most(count, most)))
    if config.deduplicate:
        rules.append(Deduplicate())
    if config.best_of_n is not None:
        rules.append(BestOfN(config.best_of_n))
    if config.max_trajectories is not None:
        rules.append(MaxTrajectories(config.max_trajectories, config.seed))
    if config.replay_buffer_size is not None:
        rules.append(ReplayBuffer(config.replay_buffer_size, config.validation_split, config.seed))
    if config.agent_ratios:
        rules.append(AgentRatios(config.agent_ratios, config.seed))
    return rules


def apply_rules(rules: Iterable[Rule], candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[RuleReport]]:
    """Return what all rules keep of the candidates, and what each rule did."""
    left, reports = list(candidates), []
    before = _num_by_agent(left)
    for rule in rules:
        verdicts = rule.apply(left)
        reasons = Counter(verdict for verdict in verdicts if isinstance(verdict, str))
        kept = [verdict for verdict in verdicts if isinstance(verdict, Candidate)]
        after = _num_by_agent(kept)
        agents = {agent: AgentCount(num, after[agent]) for agent, num in before.items()} if len(before) > 1 else {}
        reports.append(RuleReport(rule.name, len(left), len(kept), dict(reasons.most_common()), agents))
        left, before = kept, Counter({agent: after[agent] for agent in before})
    return left, reports


def _env_success(candidate: Candidate) -> str | None:
    return None if candidate.success else "success is unknown" if candidate.success is None else "failed"


def _num_by_agent(candidates: Iterable[Candidate]) -> Counter[str]:
    """Return how many trajectories of each agent are kept."""
    return Counter(candidate.agents[i] for candidate in candidates for i in candidate.trajectories)


def _reward(candidate: Candidate, least: float) -> str | None:
    if candidate.reward is None:
        return "reward is unknown"
    return f"reward below {least:g}" if candidate.reward < least else None


def _at_most(count: str, most: int) -> Callable[[Candidate], str | None]:
    reason = f"more than {most:,} {count.removeprefix('num_')}"
    return lambda candidate: reason if getattr(candidate, count) > most else None


def _best_first(candidate: Candidate) -> tuple[float, bool, int, int]:
    reward = float("-inf") if candidate.reward is None else candidate.reward
    return -reward, candidate.success is not True, candidate.num_turns, candidate.index

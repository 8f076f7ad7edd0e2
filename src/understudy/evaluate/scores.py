"""What the episodes of one policy come to.

An error is a fault of the environment or the machinery: such episodes are counted apart and enter no score. A success
that is unknown is no failure: it enters no rate. Samples of one task are kept together, because they are alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from understudy.environments import task_key
from understudy.types import JSON, Episode, Trajectory, Turn

from .statistics import CONFIDENCE, Estimate, Outcomes, mean_interval, pass_at_k, pass_hat_k, success_interval

MAX_REASONS = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one episode comes to, for one agent or for all together; light, so that many thousands can be held.

    Args:
        task: key of the task and seed that were played; samples of one task have the same.
        num_turns: actions taken.
        prompt_tokens, completion_tokens: of all turns; None where a turn's are unknown.
        policy: name of the policy; several are joined.
        environment: in which it was played.
    """

    episode: str
    task: str
    task_index: int | None
    success: bool | None
    reward: float | None
    num_turns: int
    prompt_tokens: int | None
    completion_tokens: int | None
    stop_reason: str | None
    error: str | None
    policy: str
    agents: Mapping[str, Outcome] = field(default_factory=dict)
    environment: str | None = None


@dataclass(frozen=True, slots=True)
class PassAtK:
    """The chance that one of k samples of a task succeeds (`any`), and that all do (`all`).

    `num_tasks` are those with k samples whose success is known; the others say nothing.
    """

    k: int
    any: float
    all: float
    num_tasks: int


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one policy, or of one agent. What cannot be known is None.

    Args:
        num_tasks: different tasks played.
        num_episodes: all of them, those that a fault ended included.
        num_errors: episodes that a fault ended.
        num_known: episodes whose success is known.
        success: rate, over those whose success is known.
        reward: mean, over those that have one.
        turns: actions of an episode, mean over those that no fault ended.
        prompt_tokens, completion_tokens: of an episode, likewise.
        stop_reasons, errors: how often each; the commonest.
        agents: scores of single agents, where there are several.
        environments: scores in single environments, where there are several.
    """

    policy: str
    num_tasks: int
    num_episodes: int
    num_errors: int
    num_known: int
    success: Estimate | None
    reward: Estimate | None
    pass_at_k: tuple[PassAtK, ...]
    turns: Estimate | None
    prompt_tokens: Estimate | None
    completion_tokens: Estimate | None
    stop_reasons: dict[str, int]
    errors: dict[str, int]
    agents: dict[str, Scores]
    environments: dict[str, Scores]


def task_id(task: JSON, seed: int | None) -> str:
    """Return what two plays have in common if they are plays of the same task with the same seed."""
    return f"{task_key(task)}/{seed}"


def outcome_of(episode: Episode) -> Outcome:
    """Return what an episode comes to."""
    trajectories = episode.trajectories
    agents = {t.agent: _outcome(episode, [t], t.success, t.reward) for t in trajectories}
    return _outcome(episode, trajectories, episode.success, episode.reward, agents if len(agents) > 1 else {})


def score(outcomes: Sequence[Outcome], *, k: Sequence[int] = (1,), confidence: float = CONFIDENCE) -> Scores:
    """Return the scores of episodes.

    Args:
        k: for which pass@k is given, where enough samples are known.
        confidence: of the intervals.
    """
    sound = [outcome for outcome in outcomes if outcome.error is None]
    successes = list(by_task(sound, lambda outcome: outcome.success).values())

    def mean(value: Callable[[Outcome], float | None], *, may_be_rate: bool = False) -> Estimate | None:
        return _mean(list(by_task(sound, value).values()), confidence, may_be_rate=may_be_rate)

    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.agents))
    places = sorted({outcome.environment for outcome in outcomes if outcome.environment is not None})
    return Scores(
        policy=", ".join(dict.fromkeys(outcome.policy for outcome in outcomes)),
        num_tasks=len({outcome.task for outcome in outcomes}),
        num_episodes=len(outcomes),
        num_errors=len(outcomes) - len(sound),
        num_known=sum(map(len, successes)),
        success=_mean(successes, confidence, may_be_rate=True),
        reward=mean(lambda outcome: outcome.reward, may_be_rate=True),
        pass_at_k=_pass_at(successes, k),
        turns=mean(lambda outcome: outcome.num_turns),
        prompt_tokens=mean(lambda outcome: outcome.prompt_tokens),
        completion_tokens=mean(lambda outcome: outcome.completion_tokens),
        stop_reasons=_counts(outcome.stop_reason for outcome in sound),
        errors=_counts(outcome.error for outcome in outcomes),
        agents={name: score([o.agents[name] for o in outcomes if name in o.agents], k=k, confidence=confidence)
                for name in names},
        environments={place: score([o for o in outcomes if o.environment == place], k=k, confidence=confidence)
                      for place in places if len(places) > 1},
    )  # fmt: skip


def by_task(outcomes: Iterable[Outcome], value: Callable[[Outcome], float | None]) -> dict[str, list[float]]:
    """Return the values of each task's samples; what is None is left out, and so is a task without any."""
    grouped: dict[str, list[float]] = {}
    for outcome in outcomes:
        found = value(outcome)
        if found is not None:
            grouped.setdefault(outcome.task, []).append(float(found))
    return grouped


def _mean(outcomes: Outcomes, confidence: float, *, may_be_rate: bool) -> Estimate | None:
    """Return a mean with its interval. One of zeros and ones is a rate, whose interval holds near its bounds too."""
    if not outcomes:
        return None
    is_rate = may_be_rate and all(value in (0, 1) for samples in outcomes for value in samples)
    return success_interval(outcomes, confidence) if is_rate else mean_interval(outcomes, confidence)


def _pass_at(successes: Outcomes, k: Sequence[int]) -> tuple[PassAtK, ...]:
    found = []
    for one in k:
        enough = [samples for samples in successes if len(samples) >= one]
        if enough:
            found.append(PassAtK(one, pass_at_k(enough, one), pass_hat_k(enough, one), len(enough)))
    return tuple(found)


def _outcome(
    episode: Episode,
    trajectories: Sequence[Trajectory],
    success: bool | None,
    reward: float | None,
    agents: Mapping[str, Outcome] | None = None,
) -> Outcome:
    turns = [t for trajectory in trajectories for t in trajectory.turns if t.action is not None and not t.is_label]
    return Outcome(
        episode=episode.id,
        task=task_id(episode.task, episode.seed),
        task_index=episode.metadata.get("task_index"),
        success=success,
        reward=reward,
        num_turns=len(turns),
        prompt_tokens=_total(turns, 0),
        completion_tokens=_total(turns, 1),
        stop_reason=episode.stop_reason,
        error=episode.error,
        policy=", ".join(dict.fromkeys(trajectory.policy or "unknown" for trajectory in trajectories)),
        agents=agents or {},
        environment=episode.environment,
    )


def _total(turns: Sequence[Turn], which: int) -> int | None:
    """Return the prompt (0) or completion (1) tokens of some turns; None where one does not say."""
    counts = [_tokens(turn)[which] for turn in turns]
    known = [count for count in counts if count is not None]
    return sum(known) if counts and len(known) == len(counts) else None


def _tokens(turn: Turn) -> tuple[int | None, int | None]:
    """Return a turn's prompt and completion tokens, as its server counted them or as its recorded ids are."""
    usage = turn.annotations.get("usage") or {}
    sampled = turn.sampled
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if sampled is not None:
        prompt = len(sampled.prompt_ids) if prompt is None else prompt
        completion = len(sampled.output_ids) if completion is None else completion
    return prompt, completion


def _counts(reasons: Iterable[str | None]) -> dict[str, int]:
    """Return how often each reason is given, the commonest first."""
    first_lines = (reason.partition("\n")[0][:200] for reason in reasons if reason is not None)
    return dict(Counter(first_lines).most_common(MAX_REASONS))

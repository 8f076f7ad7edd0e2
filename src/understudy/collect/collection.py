"""A collection from config to files: plan, play what is missing, write down, and sum up.

The folder is a run folder. While episodes are missing, those that are there stand in ``_journal.jsonl``; when all are
there, they are written in the plan's order to ``episodes_{time of the first start}.jsonl`` (or another kind), with
``…_stats.json`` beside it, and the journal goes. Starting again in the same folder plays what is missing: what a kill
cut off, what ended by a fault, and what was added by raising ``num_episodes``.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from understudy import registry
from understudy.config import Component, read_document
from understudy.environments import Environment
from understudy.errors import CollectError, ConfigError, FormatError
from understudy.formats import read_episodes, write_episodes
from understudy.policies import Policy
from understudy.policies.labelled import LabelledPolicy
from understudy.runs import Progress, RunFolder, write_atomically
from understudy.types import JSON, Episode

from .config import CHANGEABLE, CollectConfig
from .engine import close_environment, play_all
from .fingerprint import folder_of_play
from .interruptible import run_anywhere, run_interruptibly
from .journal import Journal
from .plan import Plan
from .rollout import Play
from .shared import SharedJournal

if TYPE_CHECKING:
    from rich.console import Console

JOURNAL = "_journal.jsonl"
MAX_REASONS = 20

log = logging.getLogger("understudy.collect")


class Statistics(Protocol):
    """Counts episodes. `understudy.curate.EpisodeStatistics` is one."""

    def add(self, episode: Episode) -> None:
        """Count one episode."""
        ...

    def report(self) -> dict[str, Any]:
        """Return all counts as JSON."""
        ...


@dataclass(frozen=True, slots=True)
class CollectResult:
    """How a collection ended.

    Args:
        path: the file of episodes.
        stats_path: its statistics.
        num_episodes: episodes in the file.
        num_played: episodes that were played now; the others were there already.
        num_errors: episodes in the file that a fault ended.
        num_successes, num_known: episodes that succeeded, of those whose success is known.
    """

    path: Path
    stats_path: Path
    num_episodes: int
    num_played: int
    num_errors: int
    num_successes: int
    num_known: int


def collect(
    config: CollectConfig,
    *,
    statistics: Callable[[], Statistics] | None = None,
    overwrite: bool = False,
    console: Console | None = None,
    label: str = "collecting",
) -> CollectResult:
    """Collect the episodes of a config, or those that are missing.

    Args:
        config: what to collect.
        statistics: makes what counts the episodes for the ``_stats.json``; without it that has only the totals.
        overwrite: delete what the folder holds, and start.
        console: where progress is shown; stderr by default.
        label: what the progress is called.

    Raises:
        ConfigError: a component cannot be made, there are too few tasks, or the folder holds something else or episodes
            of other weights.
        CollectError: episode after episode ended by a fault.
    """
    plan, policies = prepare(config, overwrite=overwrite)
    kept = folder_of_play(config, config.output_dir, config.components, overwrite=overwrite)
    with closing(plan), kept as folder:
        return _run(config, folder, plan, policies, statistics, console, label)


def prepare(config: CollectConfig, *, overwrite: bool = False) -> tuple[Plan, dict[str, Policy]]:
    """Return which episodes are to be played, and by whom. Nothing is made on the disk, and no weights are looked at.

    The plan holds an environment, and has to be closed.

    Raises:
        ConfigError: as `collect`, but for other weights.
    """
    environment: Environment = make_component("environments", config.environment)
    try:
        policies = make_policies(config, environment.agents)
        plan = Plan(config, environment, policies)
        if not overwrite:
            _check_same_collection(config)
    except BaseException:
        run_anywhere(close_environment(environment))
        raise
    return plan, policies


def agents_of(component: Component) -> tuple[str, ...]:
    """Return the agents of an environment, which is made to be asked and closed again."""
    environment: Environment = make_component("environments", component)
    try:
        return environment.agents
    finally:
        run_anywhere(close_environment(environment))


def make_component(family: str, component: Component) -> Any:
    """Make what a section of a config names."""
    return registry.create(family, component.name, component.arguments)


def make_policies(config: CollectConfig, agents: tuple[str, ...]) -> dict[str, Policy]:
    """Return the policy of each agent; agents that share a section share one object.

    Raises:
        ConfigError: an agent has none, a policy is for an agent that does not exist, or nobody is left to be labelled.
    """
    strangers = sorted(set(config.policies) - set(agents))
    if strangers:
        raise ConfigError(f"policies.{strangers[0]}: the environment's agents are {', '.join(agents)}")
    shared: Policy | None = None
    policies: dict[str, Policy] = {}
    for agent in agents:
        if agent in config.policies:
            policies[agent] = make_component("policies", config.policies[agent])
            continue
        if config.policy is None:
            raise ConfigError(f"agent {agent!r} has no policy: add policies.{agent}, or policy for all")
        shared = shared or _labelled(make_component("policies", config.policy), config)
        policies[agent] = shared
    if config.labeler is not None and shared is None:
        raise ConfigError(
            f"labeler: labels what policy does, and policies names who plays {', '.join(agents)}; leave one of them out"
        )
    return policies


def _labelled(policy: Policy, config: CollectConfig) -> Policy:
    """Return the policy with its labeler, where there is one."""
    if config.labeler is None:
        return policy
    return LabelledPolicy(policy, make_component("policies", config.labeler), beta=config.beta)


def _check_same_collection(config: CollectConfig) -> None:
    """Refuse to mix episodes that were collected in different ways."""
    path = Path(config.output_dir) / "config.yaml"
    if not path.is_file():
        return
    before = read_document(path).value
    for key, value in config.model_dump(mode="json").items():
        if key not in CHANGEABLE and key in before and before[key] != value:
            raise ConfigError(
                f"{config.output_dir}: holds a collection with {key} {before[key]!r}, not {value!r}; name another "
                "output_dir, or overwrite it"
            )


def _run(
    config: CollectConfig,
    folder: RunFolder,
    plan: Plan,
    policies: Mapping[str, Policy],
    statistics: Callable[[], Statistics] | None,
    console: Console | None,
    label: str,
) -> CollectResult:
    path = episodes_path(folder, config.output_format)
    if (finished := _finished(path, len(plan))) is not None:
        return finished
    journal: Journal | SharedJournal
    if config.store is None:
        reopen(folder.path, path.name.partition(".")[0])
        journal = Journal(folder.path / JOURNAL, fsync=config.fsync)
    else:
        ids = [play.id for play in plan]
        journal = SharedJournal(config.store, folder.path, ids, num_at_once=config.concurrency)
    try:
        missing = [index for index, play in enumerate(plan) if play.id not in journal]
        keeper = _Keeper(config, journal, plan, missing, console, label)
        run_interruptibly(_play(config, plan, missing, policies, keeper, journal))
        totals = _finish(config, journal, plan, path, policies, statistics)
    finally:
        journal.close()
    (folder.path / JOURNAL).unlink(missing_ok=True)
    return CollectResult(
        path=path,
        stats_path=stats_path(path),
        num_episodes=len(plan),
        num_played=journal.num_added,
        num_errors=totals.num_errors,
        num_successes=totals.num_successes,
        num_known=totals.num_known,
    )


def episodes_path(folder: RunFolder, output_format: str) -> Path:
    """Return where the episodes of a folder stand in the end, named by when it was started first."""
    started = datetime.fromisoformat(folder.provenance["starts"][0]["at"])
    return folder.path / f"episodes_{started:%Y%m%d_%H%M%S}.{output_format}"


def stats_path(path: Path) -> Path:
    """Return where the statistics of a file of episodes are."""
    return path.with_name(path.name.partition(".")[0] + "_stats.json")


def _finished(path: Path, num_episodes: int) -> CollectResult | None:
    """Return the result of a collection that has all its episodes already, none of them ended by a fault."""
    if not path.exists() or not stats_path(path).exists() or (path.parent / JOURNAL).exists():
        return None
    stats = json.loads(stats_path(path).read_bytes())
    if stats["num_episodes"] != num_episodes or stats["num_errors"]:
        return None
    return CollectResult(
        path=path,
        stats_path=stats_path(path),
        num_episodes=num_episodes,
        num_played=0,
        num_errors=0,
        num_successes=stats["num_successes"],
        num_known=stats["num_success_known"],
    )


def reopen(folder: Path, stem: str) -> None:
    """Make a finished collection an open one: put its episodes back into a journal."""
    finished = [file for file in folder.glob(f"{stem}.*") if not file.name.startswith(".")]
    if not finished or (folder / JOURNAL).exists():
        return
    write_episodes(folder / f"_{stem}.jsonl", read_episodes(finished[0], "native"), "native")
    (folder / f"_{stem}.jsonl").rename(folder / JOURNAL)


class _Keeper:
    """Writes finished episodes down, shows how far it has come, and stops when nothing but faults comes in."""

    def __init__(
        self,
        config: CollectConfig,
        journal: Journal | SharedJournal,
        plan: Plan,
        missing: list[int],
        console: Console | None,
        label: str,
    ) -> None:
        there = set(range(len(plan))) - set(missing)
        outcomes = Counter(journal.success(plan[index].id) for index in there)
        self.progress = Progress(label, unit="episodes", total=len(plan), done=len(there), console=console)
        self._journal = journal
        self._num_known = outcomes[True] + outcomes[False]
        self._num_successes = outcomes[True]
        self._num_errors = self._num_errors_in_a_row = 0
        self._most_errors = config.stop_after_errors

    def take(self, episode: Episode) -> None:
        """Take a finished episode.

        Raises:
            CollectError: it was one fault too many.
        """
        episode = replace(episode, created_at=datetime.now(UTC).isoformat(timespec="seconds"))
        try:
            self._journal.append(episode)
        except FormatError as error:
            episode = _without_what_happened(episode, f"what happened cannot be written: {error}")
            self._journal.append(episode)
        self._num_known += episode.success is not None
        self._num_successes += episode.success is True
        self._num_errors += episode.error is not None
        self._num_errors_in_a_row = self._num_errors_in_a_row + 1 if episode.error is not None else 0
        shown = {}
        if self._num_known:
            shown["success"] = f"{self._num_successes / self._num_known:.1%}"
        if self._num_errors:
            shown["errors"] = f"{self._num_errors:,}"
        self.progress.advance(shown=shown)
        if self._most_errors is not None and self._num_errors_in_a_row >= self._most_errors:
            raise CollectError(
                f"{self._num_errors_in_a_row} episodes in a row ended by a fault, the last one by: {episode.error} "
                "(mend: set it right and start again, what is there is kept; or raise stop_after_errors)"
            )


def _without_what_happened(episode: Episode, error: str) -> Episode:
    """Return the record of an episode that cannot be written, as when an environment's `info` is no JSON: a fault."""
    metadata = {name: value for name, value in episode.metadata.items() if name in ("task_index", "sample")}
    return replace(
        episode, trajectories=(), reward=None, success=None, stop_reason="error", error=error, metadata=metadata
    )


async def _play(
    config: CollectConfig,
    plan: Plan,
    missing: list[int],
    policies: Mapping[str, Policy],
    keeper: _Keeper,
    journal: Journal | SharedJournal,
) -> None:
    async def play(plays: Iterable[Play]) -> None:
        await play_all(
            plays,
            lambda: make_component("environments", config.environment),
            policies,
            keeper.take,
            concurrency=concurrency,
            max_turns=config.max_turns,
            timeout_seconds=config.episode_timeout_seconds,
        )

    concurrency = min(config.concurrency, max(1, len(missing)))
    try:
        with keeper.progress:
            await journal.play((plan[index] for index in missing), play, keeper.progress)
    finally:
        for policy in {id(policy): policy for policy in policies.values()}.values():
            await policy.close()


@dataclass(slots=True)
class _Totals:
    """What a collection comes to."""

    num_successes: int = 0
    num_known: int = 0
    num_errors: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    usage: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)

    def add(self, episode: Episode) -> None:
        self.num_successes += episode.success is True
        self.num_known += episode.success is not None
        self.num_errors += episode.error is not None
        if episode.error is not None:
            self.errors[episode.error.partition("\n")[0][:200]] += 1
        for _, _, turn in episode.turns():
            self.usage.update(turn.annotations.get("usage") or {})
            self.labels["num_labels"] += "agrees" in turn.annotations
            self.labels["num_acted_by_labeler"] += "acted" in turn.annotations
            self.labels["num_disagreeing"] += turn.annotations.get("agrees") is False
            self.labels["num_unlabelled"] += "unlabelled" in turn.annotations


def _finish(
    config: CollectConfig,
    journal: Journal | SharedJournal,
    plan: Plan,
    path: Path,
    policies: Mapping[str, Policy],
    statistics: Callable[[], Statistics] | None,
) -> _Totals:
    """Write the episodes in the plan's order, and their statistics."""
    totals = _Totals()

    def episodes() -> Iterator[Episode]:
        for play in plan:
            episode = journal.episode(play.id)
            totals.add(episode)
            yield episode

    counted = write_collected(path, episodes(), statistics)
    report = {
        "environment": config.environment.model_dump(mode="json"),
        "policies": {agent: policy.identity() for agent, policy in policies.items()},
        "split": config.split,
        "num_episodes": len(plan),
        "num_tasks": -(-len(plan) // config.samples_per_task),
        "samples_per_task": config.samples_per_task,
        "num_successes": totals.num_successes,
        "num_success_known": totals.num_known,
        "success_rate": totals.num_successes / totals.num_known if totals.num_known else None,
        "num_errors": totals.num_errors,
        "errors": dict(totals.errors.most_common(MAX_REASONS)),
        "usage": dict(totals.usage),
    }
    report |= {"labels": dict(totals.labels)} if config.labeler is not None else {}
    write_stats(path, report | counted)
    return totals


def write_collected(
    path: Path, episodes: Iterable[Episode], statistics: Callable[[], Statistics] | None
) -> dict[str, JSON]:
    """Write the episodes in place of what the folder has of them in another format; return what was counted."""
    counted = statistics() if statistics is not None else None

    def seen() -> Iterator[Episode]:
        for episode in episodes:
            if counted is not None:
                counted.add(episode)
            yield episode

    write_episodes(path, seen(), "native")
    for stale in path.parent.glob(f"{path.name.partition('.')[0]}.*"):
        if stale != path:
            stale.unlink()
    return counted.report() if counted is not None else {}


def write_stats(path: Path, report: Mapping[str, JSON]) -> None:
    """Write the statistics of a file of episodes."""
    write_atomically(stats_path(path), json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

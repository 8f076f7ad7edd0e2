"""From episodes to the examples that are trained and validated on, with an account of all that was left out.

Episode by episode: render each trajectory, hold it to the length limit, weigh its tokens, keep what is supervised. The
split is by episode (or by what `split_by` says), so no two turns of one episode stand on both sides of it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.batching import Example, LengthCounts, LengthLimiter, Source, make_example
from understudy.errors import ConfigError, DataError, RenderError, did_you_mean
from understudy.objectives import Objective
from understudy.rendering import Renderer
from understudy.types import ORIGIN, Episode, TokenTree, Trajectory

from .data_config import DataSection


@dataclass(frozen=True, slots=True)
class EpisodeSource:
    """Episodes under one name.

    Args:
        name: is reported with its losses.
        episodes: each with its place (``file:row``) for messages; gone through once.
        ratio: share in the mix; None where no source has one.
        agents, policies: whose trajectories are trained; None for all.
        held_out: all of it is for validation.
    """

    name: str
    episodes: Iterable[tuple[str, Episode]]
    ratio: float | None = None
    agents: tuple[str, ...] | None = None
    policies: tuple[str, ...] | None = None
    held_out: bool = False

    def selects(self, trajectory: Trajectory) -> bool:
        """Return whether this trajectory is to be trained."""
        return (self.agents is None or trajectory.agent in self.agents) and (
            self.policies is None or trajectory.policy in self.policies
        )


@dataclass(slots=True)
class SourceReport:
    """What preparing one source met.

    Args:
        agents, policies: trajectories that were read, by agent and by policy (those that name one).
        num_unselected: trajectories of other agents or policies than those to be trained.
        num_unsupervised: trajectories without a token that the objective trains.
        num_turns: turns rendered exactly.
        refusals: turns refused, by code.
        lengths: what the length limit did.
        num_unlocated: observations whose tokens could not be told apart from the template's.
        control_strings: messages that hold a control token as ordinary text, by that text.
        num_dropped_context: messages that the template does not print, so the model never sees them.
        num_dropped_tools: trajectories that offer tools of which the template prints none.
        num_examples, num_held_out: trajectories to train on and to validate on.
        num_tokens: tokens of all examples, each tree's shared prefixes once.
        num_row_tokens: the same as separate rows.
        num_targets: tokens that are trained.
    """

    name: str
    num_episodes: int = 0
    num_trajectories: int = 0
    agents: Counter[str] = field(default_factory=Counter)
    policies: Counter[str] = field(default_factory=Counter)
    num_unselected: int = 0
    num_unsupervised: int = 0
    num_turns: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    lengths: LengthCounts = field(default_factory=LengthCounts)
    num_unlocated: int = 0
    control_strings: Counter[str] = field(default_factory=Counter)
    num_dropped_context: int = 0
    num_dropped_tools: int = 0
    num_examples: int = 0
    num_held_out: int = 0
    num_tokens: int = 0
    num_row_tokens: int = 0
    num_targets: int = 0

    @property
    def num_refused(self) -> int:
        return sum(self.refusals.values())


@dataclass(frozen=True, slots=True)
class PreparedData:
    """Examples to train and to validate on.

    Args:
        train: sources with at least one example each; empty where all sources are held out.
        ratios: shares in the mix, in the order of `train`; None for none.
        validation: held-out examples by source; empty when nothing is held out.
        reports: one for each source that was read.
        fingerprint: hash of all examples, in order: ids, targets and weights.
    """

    train: tuple[Source, ...]
    ratios: tuple[float, ...] | None
    validation: tuple[Source, ...]
    reports: tuple[SourceReport, ...]
    fingerprint: str


def prepare(
    sources: Sequence[EpisodeSource],
    renderer: Renderer,
    objective: Objective,
    config: DataSection,
    *,
    seed: int,
    on_episode: Callable[[], None] | None = None,
) -> PreparedData:
    """Render, limit, weigh and split all sources.

    Args:
        on_episode: is called after each episode, to show progress.

    Raises:
        RenderError: a turn was refused and the renderer's policy is to fail; names the episode.
        DataError: a trajectory is too long and the policy is to stop, a weight is missing, or nothing is left to train.
        ConfigError: a source is too small to hold anything out, or has no trajectory of an agent or policy to train.
    """
    preparation = _Preparation(renderer, objective, config, on_episode)
    train: list[Source] = []
    validation: list[Source] = []
    reports: list[SourceReport] = []
    ratios: list[float] = []
    sides: dict[str, bool] = {}
    for source in sources:
        examples, keys, report = preparation.read(source)
        _check_selection(source, report)
        held_out = [source.held_out] * len(examples)
        if config.validation_split and not source.held_out:
            held_out = _hold_out(keys, config.validation_split, seed, source.name, sides)
        kept = [example for example, out in zip(examples, held_out, strict=True) if not out]
        held = [example for example, out in zip(examples, held_out, strict=True) if out]
        report.num_examples, report.num_held_out = len(kept), len(held)
        reports.append(report)
        if not source.held_out:
            _check_any(kept, report, objective)
            train.append(Source(source.name, kept))
            ratios += [source.ratio] if source.ratio is not None else []
        elif not held:
            raise DataError(_nothing(report, objective), file=source.name)
        if held:
            validation.append(Source(source.name, held))
    if not train and not validation:
        raise DataError("there is no data to train on", mend="set data.path, or data.sources")
    if config.temperature is not None:
        ratios = [len(source.examples) ** (1 / config.temperature) for source in train]
    return PreparedData(
        train=tuple(train),
        ratios=tuple(ratios) or None,
        validation=tuple(validation),
        reports=tuple(reports),
        fingerprint=_fingerprint(train, validation),
    )


@dataclass(frozen=True, slots=True)
class _Preparation:
    """What all sources are prepared with."""

    renderer: Renderer
    objective: Objective
    config: DataSection
    on_episode: Callable[[], None] | None

    def read(self, source: EpisodeSource) -> tuple[list[Example], list[str], SourceReport]:
        """Return a source's examples, what each is split by, and the account."""
        limiter = LengthLimiter(self.config.max_length, self.config.max_length_policy)
        report = SourceReport(source.name, lengths=limiter.counts)
        examples: list[Example] = []
        keys: list[str] = []
        for place, episode in source.episodes:
            report.num_episodes += 1
            key = _split_key(episode, self.config.split_by)
            for index, trajectory in enumerate(episode.trajectories):
                report.agents[trajectory.agent] += 1
                report.policies.update([trajectory.policy] if trajectory.policy is not None else [])
                if not source.selects(trajectory):
                    report.num_unselected += 1
                    continue
                report.num_trajectories += 1
                name = place
                if len(episode.trajectories) > 1:
                    name += f" (trajectory {index}, {trajectory.agent})"
                example = self._example(name, trajectory, episode, limiter, report)
                if example is not None:
                    examples.append(example)
                    keys.append(key)
            if self.on_episode is not None:
                self.on_episode()
        return examples, keys, report

    def _example(
        self, name: str, trajectory: Trajectory, episode: Episode, limiter: LengthLimiter, report: SourceReport
    ) -> Example | None:
        try:
            rendered = self.renderer.render(trajectory)
        except RenderError as error:
            mend = "or choose what to do with such turns: rendering.on_refusal: skip or context"
            raise RenderError(f"{name}: {error}; {mend}") from error
        report.num_turns += len(rendered.turns)
        report.refusals.update(str(refusal.code) for refusal in rendered.refusals)
        report.control_strings.update(found.text for found in rendered.control_strings)
        report.num_dropped_context += len(rendered.dropped_context)
        report.num_dropped_tools += rendered.drops_tools
        report.num_unlocated += rendered.num_unlocated_observations

        def weigh(tree: TokenTree) -> dict[str, NDArray[np.float64]]:
            try:
                return self.objective.weigh(tree, trajectory, episode)
            except DataError as error:
                raise error.at(file=name) from error

        def trained() -> NDArray[np.bool_]:
            return np.any([*weigh(rendered.tree).values()], axis=0)

        tree = limiter.apply(rendered.tree, name, trained=trained)
        if tree is None:
            return None
        example = make_example(tree, weigh(tree), name=name)
        if example is None:
            report.num_unsupervised += 1
            return None
        report.num_tokens += example.num_tokens
        report.num_row_tokens += example.num_row_tokens
        report.num_targets += len(example.label)
        return example


def _check_selection(source: EpisodeSource, report: SourceReport) -> None:
    """Refuse names that no trajectory has: training would go on without what was asked for."""
    if not report.agents:
        return
    for key, asked, known in (("agents", source.agents, report.agents), ("policies", source.policies, report.policies)):
        for name in asked or ():
            if name not in known:
                near, its = did_you_mean(name, known), ", ".join(sorted(known)) or "none"
                raise ConfigError(f"data.{key}: no trajectory of {source.name!r} is of {name!r}.{near} It has: {its}")


def _split_key(episode: Episode, split_by: Sequence[str]) -> str:
    def value(key: str) -> Any:
        if key.startswith("metadata."):
            return episode.metadata.get(key.removeprefix("metadata."))
        # What was added in hindsight has the actions of the episode that it is made of.
        return episode.metadata.get(ORIGIN, episode.id) if key == "id" else getattr(episode, key)

    return json.dumps([value(key) for key in split_by], sort_keys=True, default=str)


def _hold_out(keys: Sequence[str], share: float, seed: int, name: str, sides: dict[str, bool]) -> list[bool]:
    """Return for each example whether it is held out: a seeded draw of whole groups of equal keys.

    Args:
        sides: whether a key is held out, of the sources before this one; those keys stay where they are. This source's
            are added.
    """
    groups = list(dict.fromkeys(keys))
    if len(groups) < 2:
        raise ConfigError(
            f"data.validation_split is {share}, but source {name!r} has {len(groups)} episode(s) that data.split_by "
            "can tell apart; validate on a file of its own (data.validation_path), or hold nothing out"
        )
    num_held_out = min(max(round(share * len(groups)), 1), len(groups) - 1)
    words = np.frombuffer(hashlib.sha256(name.encode()).digest()[:8], np.uint32)
    order = np.random.default_rng([seed, *words.tolist()]).permutation(len(groups))
    num_to_draw = max(num_held_out - sum(sides.get(group, False) for group in groups), 0)
    drawn = [groups[index] for index in order.tolist() if groups[index] not in sides]
    sides |= dict.fromkeys(drawn[:num_to_draw], True) | dict.fromkeys(drawn[num_to_draw:], False)
    if all(sides[group] for group in groups):
        raise ConfigError(
            f"data.validation_split: all that source {name!r} has is held out, because data.split_by cannot tell it "
            "apart from what other sources hold out; validate on a file of its own (data.validation_path)"
        )
    return [sides[key] for key in keys]


def _check_any(examples: Sequence[Example], report: SourceReport, objective: Objective) -> None:
    if not examples:
        raise DataError(_nothing(report, objective), file=report.name)


def _nothing(report: SourceReport, objective: Objective) -> str:
    """Say why a source gives nothing to train on."""
    left_out = [
        (report.num_unselected, "trajectories are of other agents or policies"),
        (report.num_refused, f"turns were refused ({', '.join(report.refusals)})"),
        (report.lengths.num_dropped, "trajectories are longer than data.max_length"),
        (report.num_unsupervised, f"trajectories have no token that is trained by {', '.join(objective.coefficients)}"),
    ]
    reasons = "; ".join(f"{count:,} {what}" for count, what in left_out if count)
    return f"nothing is left to train on: {report.num_episodes:,} episodes" + (f", but {reasons}" if reasons else "")


def _fingerprint(*sides: Sequence[Source]) -> str:
    """Return a hash of everything in the examples that decides a loss; not of where the files lie."""
    digest = hashlib.sha256()
    for side in sides:
        digest.update(b"side")
        for source in side:
            digest.update(json.dumps([source.name, len(source.examples)]).encode())
            for example in source.examples:
                digest.update(json.dumps(example.term_names).encode())
                arrays = (example.ids, example.run_start, example.run_parent, example.position, example.label)
                for array in (*arrays, example.weights):
                    digest.update(np.int64(array.size).tobytes())
                    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]

"""A curation from config to files: summarise every episode, apply the rules, write what is left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

from understudy.config import dump_config
from understudy.errors import ConfigError, did_you_mean
from understudy.formats import list_files, read_episodes, write_episodes
from understudy.formats.dataset_info import split_reference
from understudy.runs import hold_folder, write_atomically
from understudy.types import Episode

from .augment import ORIGIN, augmented, make_augmentations
from .config import CurateConfig
from .hindsight import RELABELLED, Watch, write_relabelled
from .rules import BesideOrigin, Candidate, Encode, RuleReport, apply_rules, rules_of, summarise
from .split import held_out_tasks
from .statistics import EpisodeStatistics

REPORT = "curation_stats.json"

OUTPUT_FORMATS = get_args(CurateConfig.model_fields["output_format"].annotation)

Chosen = dict[int, tuple[int, ...]]
"""Which trajectories are kept, by the episode's position in the data."""

Source = tuple[list[str], str]
"""Paths, and the format of their rows."""

Copies = Callable[[Episode], Iterator[Episode]]
"""From an episode to what else is trained on of it."""


@dataclass(frozen=True, slots=True)
class CurateResult:
    """What a curation kept.

    Args:
        train: the file of episodes to train on.
        validation: that of those held out; None where nothing is.
        num_read: episodes in the data, those that were added in hindsight included.
        num_train, num_validation: episodes in the files.
        rules: what each rule did, in the order in which they were applied.
        num_relabelled: failed episodes that were added as successes at other tasks.
        num_augmented: copies in the file to train on, beside `num_train` episodes.
    """

    train: Path
    validation: Path | None
    num_read: int
    num_train: int
    num_validation: int
    rules: tuple[RuleReport, ...]
    num_relabelled: int = 0
    num_augmented: int = 0


def curate(
    config: CurateConfig, *, overwrite: bool = False, watch: Watch = lambda episodes, label: iter(episodes)
) -> CurateResult:
    """Curate the episodes of a config into files.

    Args:
        config: what to keep.
        overwrite: replace files of an earlier curation.
        watch: is given the episodes of each pass, and passes them on.

    Raises:
        ConfigError: nothing is left, a file is there already, or another process is writing into the folder.
        FormatError: a row of the data cannot be read.
    """
    sources = _sources(config)
    with hold_folder(config.output_dir):
        return _curate(config, sources, overwrite=overwrite, watch=watch)


def _curate(config: CurateConfig, sources: list[Source], *, overwrite: bool, watch: Watch) -> CurateResult:
    folder = Path(config.output_dir)
    names = ["train"] + ["validation"] * bool(config.validation_split)
    targets = {name: folder / f"{name}.{config.output_format}" for name in names}
    _check_sources(sources, {*targets.values(), *_earlier_files(folder)}, overwrite=overwrite)
    encode = _encoder(config)
    augmentations = make_augmentations(config.augment)
    num_relabelled = num_augmented = 0
    if config.hindsight:
        num_relabelled = write_relabelled(config, folder / RELABELLED, watch)
        sources += [([str(folder / RELABELLED)], "native")] * bool(num_relabelled)
    candidates = [
        summarise(episode, index, encode) for index, episode in enumerate(watch(_read(sources, config), "judging"))
    ]
    _check_agents(config, candidates)
    rules = rules_of(config)
    if config.validation_split and any(candidate.origin is not None for candidate in candidates):
        rules.append(BesideOrigin(config.validation_split, config.seed))
    kept, reports = apply_rules(rules, candidates)
    if not kept:
        raise ConfigError(f"no episode is left of {len(candidates):,}; {_account(reports)}{_hint(config, candidates)}")
    held_out = held_out_tasks(kept, config.validation_split, config.seed)
    if config.validation_split and not held_out:
        raise ConfigError(
            f"validation_split: all {len(kept):,} episodes that are left are of one task, or made of its failures in "
            "hindsight, and stay on one side; set it to 0, or add episodes of other tasks"
        )
    parts: dict[str, Chosen] = {"train": {}, "validation": {}}
    for candidate in kept:
        name = "validation" if candidate.task in held_out else "train"
        parts[name][candidate.index] = candidate.trajectories
    # What this curation does not write again would be read with it, or for its own: as what it has held out.
    for stale in _earlier_files(folder).difference(targets.values(), [folder / RELABELLED] * config.hindsight):
        stale.unlink()
        _stats_path(stale).unlink(missing_ok=True)
    copying = partial(augmented, augmentations=augmentations, copies=config.augment_copies, seed=config.seed)
    for name, target in targets.items():
        copies = copying if augmentations and name == "train" else None
        num_augmented += _write(config, sources, target, parts[name], watch, copies)
    result = CurateResult(
        train=targets["train"],
        validation=targets.get("validation"),
        num_read=len(candidates),
        num_train=len(parts["train"]),
        num_validation=len(parts["validation"]),
        rules=tuple(reports),
        num_relabelled=num_relabelled,
        num_augmented=num_augmented,
    )
    write_atomically(folder / "config.yaml", dump_config(config))
    report = asdict(result) | {name: str(target) for name, target in targets.items()}
    write_atomically(folder / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return result


def _sources(config: CurateConfig) -> list[Source]:
    """Return what is read, the oldest first. Folders and patterns are looked up once, before anything is written: files
    that a pass leaves among them must not be read by the next."""
    replay, path = ([given] if isinstance(given, str) else list(given) for given in (config.replay_path, config.path))
    return [(_files(replay), "native")] * bool(replay) + [(_files(path), config.format)]


def _files(paths: list[str]) -> list[str]:
    return paths if split_reference(paths) is not None else list_files(paths)


def _read(sources: Iterable[Source], config: CurateConfig) -> Iterator[Episode]:
    """Yield the data; copies that an earlier curation has made are made anew where copies are wanted."""
    for paths, format in sources:
        for episode in read_episodes(paths, format):
            if not (config.augment and ORIGIN in episode.metadata):
                yield episode


def _write(
    config: CurateConfig, sources: list[Source], target: Path, chosen: Chosen, watch: Watch, copies: Copies | None
) -> int:
    """Write what is chosen, each with its copies; return how many copies there are."""
    statistics = EpisodeStatistics()
    num_copies = 0

    def kept() -> Iterator[Episode]:
        nonlocal num_copies
        for index, episode in enumerate(watch(_read(sources, config), f"writing {target.name}")):
            if index in chosen:
                trajectories = tuple(episode.trajectories[i] for i in chosen[index])
                narrowed = replace(episode, trajectories=trajectories)
                for number, one in enumerate([narrowed, *(copies(narrowed) if copies is not None else ())]):
                    num_copies += number > 0
                    statistics.add(one)
                    yield one

    write_episodes(target, kept(), "native")
    stats = json.dumps(statistics.report(), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(_stats_path(target), stats + "\n")
    return num_copies


def _stats_path(target: Path) -> Path:
    return target.with_name(f"{target.name.partition('.')[0]}_stats.json")


def _earlier_files(folder: Path) -> set[Path]:
    """Return the files of episodes that an earlier curation has left, of whatever kind."""
    names = [f"{name}.{kind}" for name in ("train", "validation") for kind in OUTPUT_FORMATS]
    return {path for path in (folder / name for name in [*names, RELABELLED]) if path.exists()}


def _check_sources(sources: list[Source], targets: Iterable[Path], *, overwrite: bool) -> None:
    files = [file for paths, _ in sources for file in list_files(paths)]
    if "-" in files:
        raise ConfigError("path: standard input cannot be read twice; save it to a file first")
    for target in sorted(targets):
        if target.exists() and any(target.samefile(file) for file in files):
            raise ConfigError(f"{target}: is one of the files to read; name another output_dir")
        if target.exists() and not overwrite and target.name != RELABELLED:
            raise ConfigError(f"{target}: exists already; --overwrite replaces it")


def _hint(config: CurateConfig, candidates: Iterable[Candidate]) -> str:
    """Say where agents succeeded though no episode did, as when one of them can only win against the others."""
    num = sum(any(candidate.agent_successes) for candidate in candidates)
    if not (config.only_success and config.success_of == "env" and num):
        return ""
    return f". {num:,} episodes have agents that succeeded: success_of=agent keeps their trajectories"


def _check_agents(config: CurateConfig, candidates: Iterable[Candidate]) -> None:
    """Hold the agents that are to be balanced against those of the data."""
    if not config.agent_ratios:
        return
    known = list(dict.fromkeys(agent for candidate in candidates for agent in candidate.agents))
    for agent in config.agent_ratios:
        if agent not in known:
            near = did_you_mean(agent, known)
            raise ConfigError(f"agent_ratios: the data has no agent {agent!r}.{near} It has {', '.join(known)}")
    missing = [agent for agent in known if agent not in config.agent_ratios]
    if missing:
        raise ConfigError(f"agent_ratios: give a ratio for agent {missing[0]!r} too; 0 leaves it out")


def _encoder(config: CurateConfig) -> Encode | None:
    if config.model is None:
        return None
    from understudy.rendering import load_tokenizer

    return load_tokenizer(config.model).encode


def _account(reports: Iterable[RuleReport]) -> str:
    dropped = [f"{r.rule} left out {r.num_before - r.num_kept:,} of {r.num_before:,}" for r in reports if r.reasons]
    return ", ".join(dropped) or "the data is empty"

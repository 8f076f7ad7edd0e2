"""Training several policies in one run: one after the other, each in a run folder of its own within the run's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.config import read_document
from understudy.errors import ConfigError
from understudy.train.config import TrainConfig
from understudy.train.data import EpisodeSource
from understudy.train.launch import rank

from .converted import ConvertedRecords, ConvertRecord
from .datasets import Dataset, open_sources
from .stores import RunStores

if TYPE_CHECKING:
    from understudy.train.run import TrainResult

log = logging.getLogger("understudy.train")

Planned = tuple[TrainConfig, Sequence[EpisodeSource]]
"""A training run and what it reads."""


def plan_policies(
    config: TrainConfig,
    train_dataset: Dataset | None = None,
    eval_dataset: Dataset | None = None,
    convert: ConvertRecord | None = None,
    stores: RunStores | None = None,
) -> dict[str, Planned]:
    """Return what is to be trained, by policy; one model for all has an empty name.

    Args:
        train_dataset, eval_dataset, convert: see `train`.
        stores: see `open_sources`; the policies share what is claimed.

    Raises:
        ConfigError, FormatError, StoreError: as `open_sources`.
    """
    if config.policies is not None:
        train_dataset, eval_dataset = _repeatable(train_dataset), _repeatable(eval_dataset)
    planned: dict[str, Planned] = {}
    for name, one in config.by_policy().items():
        converted = None if convert is None else ConvertedRecords(convert, one)
        planned[name] = (one, open_sources(one.data, train_dataset, eval_dataset, converted, stores))
    return planned


def train_in_turn(
    config: TrainConfig,
    planned: Mapping[str, Planned],
    train_one: Callable[[TrainConfig, Sequence[EpisodeSource]], TrainResult],
) -> TrainResult:
    """Train each policy, unless a signal ends the run before its turn, and return what came of all.

    Args:
        config: of the whole run.
        train_one: trains one of them.
    """
    from understudy.train.run import TrainResult

    results: dict[str, TrainResult] = {}
    for number, (name, (one, sources)) in enumerate(planned.items(), start=1):
        if rank() == 0:
            log.info("policy %s (%d of %d): into %s", name, number, len(planned), one.output_dir)
        results[name] = train_one(one, sources)
        if results[name].signal is not None:
            break
    return TrainResult(
        folder=Path(config.output_dir),
        final=None,
        step=sum(result.step for result in results.values()),
        num_steps=sum(result.num_steps for result in results.values()),
        loss=None,
        eval_loss=None,
        best_loss=None,
        best_step=None,
        signal=next((result.signal for result in results.values() if result.signal is not None), None),
        is_early=any(result.is_early for result in results.values()),
        policies=results,
    )


def check_same_policies(config: TrainConfig) -> None:
    """Refuse to go on in the folder of a run that trained other policies, or one model for all.

    Raises:
        ConfigError: names them.
    """
    path = Path(config.output_dir) / "config.yaml"
    if not path.is_file():
        return
    before, now = list(read_document(path).value.get("policies") or ()), list(config.policies or ())
    if sorted(before) != sorted(now):
        held, wanted = (f"the policies {', '.join(names)}" if names else "one model for all" for names in (before, now))
        raise ConfigError(f"{config.output_dir}: holds a run of {held}, not of {wanted}; name another output_dir")


def _repeatable(dataset: Dataset | None) -> Dataset | None:
    """Return a dataset that can be gone through once for every policy."""
    return list(dataset) if isinstance(dataset, Iterator) else dataset

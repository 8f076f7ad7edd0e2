"""Training as one call: `train(config, train_dataset=…)`, and `dry_run` for everything but the training."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config import config_from_dict, dump_config, load_config
from understudy.errors import ConfigError
from understudy.runs import RunFolder
from understudy.train.config import ModelSection, TrainConfig
from understudy.train.data import EpisodeSource
from understudy.train.launch import check_launcher, rank
from understudy.types import Episode

from .datasets import Dataset, open_sources

if TYPE_CHECKING:
    import torch

    from understudy.train.estimate import DryRun
    from understudy.train.run import TrainResult

TINY_BASE = "base"
"""Folder within the run's folder that holds a tiny model as it was before training."""

_TINY_VOCAB_SIZE = 2048

log = logging.getLogger("understudy.train")

AnyConfig = TrainConfig | Mapping[str, Any] | str | Path


def train(
    config: AnyConfig,
    train_dataset: Dataset | None = None,
    eval_dataset: Dataset | None = None,
    *,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
) -> TrainResult:
    """Train a model.

    Args:
        config: a config, a mapping of its keys, or a YAML file.
        train_dataset: what to train on, in place of the config's data: paths, or an iterable of episodes or of rows in
            any format that is known (such as AgentRL's `RecordData`, as objects or mappings), or a PyTorch dataset of
            these.
        eval_dataset: the same to validate on.
        overrides: ``dotted.key=value``.
        overwrite: delete the run that `output_dir` holds.

    Raises:
        UnderstudyError: whatever cannot work, with its mend.
    """
    checked = read_config(config, overrides)
    sources = open_sources(checked.data, train_dataset, eval_dataset)
    check_training(checked, sources)

    from understudy.models.load import without_bars
    from understudy.train.distributed import process_group, training_device

    device = training_device(checked.train.device)
    with without_bars(), process_group(device):
        if rank() != 0:
            return _train(checked, sources, device, None)
        return _train_in_folder(checked, sources, device, overwrite=overwrite)


def dry_run(
    config: AnyConfig,
    train_dataset: Dataset | None = None,
    eval_dataset: Dataset | None = None,
    *,
    overrides: Sequence[str] = (),
) -> DryRun:
    """Do everything but train: read and render all data, plan the steps, estimate the memory. Nothing is kept.

    Raises:
        UnderstudyError: as `train`.
    """
    checked = read_config(config, overrides)
    sources = open_sources(checked.data, train_dataset, eval_dataset)
    check_training(checked, sources)

    from understudy.models.load import without_bars
    from understudy.train.estimate import describe
    from understudy.train.inputs import prepare_inputs

    with without_bars(), tempfile.TemporaryDirectory() as temporary:
        in_memory, base = _base(checked, sources, Path(temporary), is_main=True)
        inputs = prepare_inputs(checked, in_memory, base=base, tokenizer=checked.model.tokenizer or base)
        return describe(inputs)


def read_config(config: AnyConfig, overrides: Sequence[str] = ()) -> TrainConfig:
    """Return a checked config.

    Raises:
        ConfigError: all that is wrong with it.
    """
    if isinstance(config, str | Path):
        return load_config(TrainConfig, config, overrides)
    if isinstance(config, TrainConfig):
        config = config.model_dump(mode="json")
    return config_from_dict(TrainConfig, config, overrides)


def _train_in_folder(
    config: TrainConfig, sources: Sequence[EpisodeSource], device: torch.device, *, overwrite: bool
) -> TrainResult:
    """Train within the run's folder, and write down there how it ended."""
    resume = config.resume == "auto"
    overwrite = overwrite or (not resume and _came_to_nothing(Path(config.output_dir)))
    folder = RunFolder.open(config.output_dir, config=dump_config(config), resume=resume, overwrite=overwrite)
    try:
        result = _train(config, sources, device, folder)
    except BaseException as error:
        with contextlib.suppress(OSError):  # a full disk must not hide the error that it caused
            log.error("%s: %s", type(error).__name__, error)
            folder.close("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    folder.close("finished" if result.signal is None else "interrupted")
    return result


def _came_to_nothing(folder: Path) -> bool:
    """Return whether a folder holds a run that measured nothing, so that the same command may be given again."""
    is_run = (folder / "provenance.json").is_file()
    return is_run and not (folder / "metrics.jsonl").exists() and not any(folder.glob("checkpoint-*"))


def _train(
    config: TrainConfig, sources: Sequence[EpisodeSource], device: torch.device, folder: RunFolder | None
) -> TrainResult:
    from understudy.train.inputs import prepare_inputs
    from understudy.train.run import train as run

    from .rollouts import TrainingRollouts

    sources, base = _base(config, sources, Path(config.output_dir), is_main=folder is not None)
    tokenizer = config.model.tokenizer or base
    inputs = prepare_inputs(config, sources, base=base, tokenizer=tokenizer, quiet=folder is None)
    return run(inputs, device, folder, TrainingRollouts.of(config, inputs.renderer))


def check_training(config: TrainConfig, sources: Sequence[EpisodeSource]) -> None:
    """Refuse what cannot work with this data or on this machine, before anything heavy starts.

    Args:
        sources: what is known of the data; none where it is not there yet.

    Raises:
        ConfigError, MissingDependency
    """
    check_launcher("bf16" if config.train.bf16 else "fp16" if config.train.fp16 else "no")
    holds_out = config.data.holds_out or any(source.held_out for source in sources)
    needs = {
        "train.early_stopping_patience": config.train.early_stopping_patience is not None,
        "train.load_best_model_at_end": config.train.load_best_model_at_end,
        "train.eval_steps": config.train.eval_steps is not None and config.evaluation is None,
    }
    for key, wanted in needs.items():
        if wanted and not holds_out:
            raise ConfigError(f"{key} needs data to validate on: set data.validation_split or data.validation_path")
    if config.evaluation is not None:
        from .rollouts import plan_rollouts

        plan_rollouts(config.evaluation)
    if config.train.report_to:
        from understudy.train.trackers import check_trackers

        check_trackers(config.train.trackers)
    if config.lora is not None:
        from understudy.models.load import require_peft

        require_peft("lora")


def _base(
    config: TrainConfig, sources: Sequence[EpisodeSource], folder: Path, *, is_main: bool
) -> tuple[Sequence[EpisodeSource], str]:
    """Return the sources and the model to start from; a tiny one is made in `folder` for a run that begins."""
    if config.model.path is not None:
        return sources, config.model.path
    in_memory = [replace(source, episodes=list(source.episodes)) for source in sources]
    base = folder / TINY_BASE
    if is_main and not (base.exists() and any(folder.glob("checkpoint-*"))):
        shutil.rmtree(base, ignore_errors=True)  # what a start without a checkpoint left may be of another config
        _make_tiny(config.model, config.train.seed, in_memory, base)

    from understudy.train.distributed import gathered

    gathered(None)  # the others wait until it is there
    return in_memory, str(base)


def _make_tiny(config: ModelSection, seed: int, sources: Sequence[EpisodeSource], base: Path) -> None:
    from understudy.models.load import load_hf_tokenizer
    from understudy.models.tiny import save_tiny, train_tokenizer

    assert config.tiny is not None
    if config.tokenizer is not None:
        tokenizer = load_hf_tokenizer(config.tokenizer, trust_remote_code=config.trust_remote_code)
    else:
        texts = (text for source in sources for _, episode in source.episodes for text in _texts(episode))
        tokenizer = train_tokenizer(texts, vocab_size=config.vocab_size or _TINY_VOCAB_SIZE)
    sizes = {"hidden_size": config.hidden_size, "num_layers": config.num_layers}
    given = {name: size for name, size in sizes.items() if size is not None}
    save_tiny(base, config.tiny, tokenizer, seed=seed, **given)


def _texts(episode: Episode) -> Iterator[str]:
    """Yield what an episode's messages and tools say."""
    for _, _, turn in episode.turns():
        yield from (f"{tool.name} {tool.description} {tool.parameters}" for tool in turn.tools)
        for message in (*turn.observation, *((turn.action,) if turn.action else ())):
            yield message.text()
            yield message.reasoning_content or ""
            yield from (f"{call.name} {call.arguments_text()}" for call in message.tool_calls)

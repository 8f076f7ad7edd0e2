"""Training as one call: `train(config, train_dataset=…)`, and `dry_run` for everything but the training."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config import config_from_dict, dump_config, load_config
from understudy.errors import ConfigError
from understudy.runs import RunFolder
from understudy.train.config import TINY_SIZES, ModelSection, TrainConfig
from understudy.train.data import EpisodeSource
from understudy.train.launch import check_launcher, rank
from understudy.types import Episode, tools_to_openai

from .converted import ConvertRecord
from .datasets import Dataset
from .policies import Planned, check_same_policies, plan_policies, train_in_turn
from .stores import Note, RunStores

if TYPE_CHECKING:
    from understudy.train.estimate import DryRun
    from understudy.train.run import TrainResult

TINY_BASE = "base"
"""Folder within the run's folder that holds a tiny model as it was before training."""

_TINY_VOCAB_SIZE = 2048

AnyConfig = TrainConfig | Mapping[str, Any] | str | Path


def train(
    config: AnyConfig,
    train_dataset: Dataset | None = None,
    eval_dataset: Dataset | None = None,
    *,
    convert_record_to_data_func: ConvertRecord | None = None,
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
        convert_record_to_data_func: a generator, asynchronous or not, that is called with each record of the data (a
            row of a file, or what a data set yields) and the run's config, and yields what is trained on:
            `RecordData`, mappings with its keys, or episodes.
        overrides: ``dotted.key=value``.
        overwrite: delete the run that `output_dir` holds.

    Raises:
        UnderstudyError: whatever cannot work, with its mend.
    """
    checked = read_config(config, overrides)
    stores = RunStores(checked.data)
    planned = plan_policies(checked, train_dataset, eval_dataset, convert_record_to_data_func, stores)
    for one, sources in planned.values():
        check_training(one, sources)

    from understudy.models.load import without_bars
    from understudy.train.distributed import process_group, training_device

    with without_bars(), process_group(training_device(checked.train.device)):
        if checked.policies is None:
            run = partial(_train, *planned[""], stores)
        else:
            run = partial(_train_policies, checked, planned, stores)
        if rank() == 0:
            return _in_folder(checked, run, stores, overwrite=overwrite)
        stores.share()
        return run(None)


def dry_run(
    config: AnyConfig,
    train_dataset: Dataset | None = None,
    eval_dataset: Dataset | None = None,
    *,
    convert_record_to_data_func: ConvertRecord | None = None,
    overrides: Sequence[str] = (),
) -> DryRun:
    """Do everything but train: read and render all data, plan the steps, estimate the memory. Nothing is kept.

    Raises:
        UnderstudyError: as `train`.
    """
    checked = read_config(config, overrides)
    if checked.policies is not None:
        raise ConfigError("this run trains several policies; dry_runs gives what each would do")
    return dry_runs(checked, train_dataset, eval_dataset, convert_record_to_data_func=convert_record_to_data_func)[""]


def dry_runs(
    config: AnyConfig,
    train_dataset: Dataset | None = None,
    eval_dataset: Dataset | None = None,
    *,
    convert_record_to_data_func: ConvertRecord | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, DryRun]:
    """Do `dry_run` for every policy that a run trains; one model for all has an empty name.

    Raises:
        UnderstudyError: as `train`.
    """
    planned = plan_policies(read_config(config, overrides), train_dataset, eval_dataset, convert_record_to_data_func)
    for one, sources in planned.values():
        check_training(one, sources)

    from understudy.models.load import without_bars
    from understudy.train.estimate import describe
    from understudy.train.inputs import prepare_inputs

    found = {}
    for name, (one, sources) in planned.items():
        with without_bars(), tempfile.TemporaryDirectory() as temporary:
            in_memory, base = _base(one, sources, Path(temporary), is_main=True)
            inputs = prepare_inputs(one, in_memory, base=base, tokenizer=one.model.tokenizer or base)
            found[name] = describe(inputs)
    return found


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


def _train_policies(
    config: TrainConfig, planned: Mapping[str, Planned], stores: RunStores, folder: RunFolder | None
) -> TrainResult:
    """Train each policy, on the main rank within a folder of its own."""

    def train_one(one: TrainConfig, sources: Sequence[EpisodeSource]) -> TrainResult:
        run = partial(_train, one, sources, stores)
        return run(None) if folder is None else _in_folder(one, run, None, overwrite=False)

    return train_in_turn(config, planned, train_one)


def _in_folder(
    config: TrainConfig, train: Callable[[RunFolder], TrainResult], stores: RunStores | None, *, overwrite: bool
) -> TrainResult:
    """Train within the run's folder, and write down there how it ended.

    Args:
        stores: what is to be claimed for it; None where another folder's run does that.
    """
    resume = config.resume == "auto"
    if resume:
        check_same_policies(config)
    overwrite = overwrite or (not resume and _came_to_nothing(Path(config.output_dir)))
    earlier = Note.read(config.output_dir)
    folder = RunFolder.open(config.output_dir, config=dump_config(config), resume=resume, overwrite=overwrite)
    try:
        result = train(folder) if stores is None else stores.hold(folder, earlier, train)
    except BaseException as error:
        folder.fail(error)
        raise
    folder.close("finished" if result.signal is None else "interrupted")
    return result


def _came_to_nothing(folder: Path) -> bool:
    """Return whether a folder holds a run that measured nothing, so that the same command may be given again."""
    is_run = (folder / "provenance.json").is_file()
    measured = ("metrics.jsonl", "checkpoint-*", "*/metrics.jsonl", "*/checkpoint-*")  # of a policy's folder too
    return is_run and not any(next(folder.glob(pattern), None) for pattern in measured)


def _train(
    config: TrainConfig, sources: Sequence[EpisodeSource], stores: RunStores, folder: RunFolder | None
) -> TrainResult:
    from understudy.train.distributed import training_device
    from understudy.train.inputs import prepare_inputs
    from understudy.train.run import train as run

    from .rollouts import TrainingRollouts

    sources, base = _base(config, sources, Path(config.output_dir), is_main=folder is not None)
    tokenizer = config.model.tokenizer or base
    inputs = prepare_inputs(config, sources, base=base, tokenizer=tokenizer, quiet=folder is None)
    device = training_device(config.train.device)
    rollouts = TrainingRollouts.of(config, inputs.renderer)
    result = run(inputs, device, folder, rollouts, stores.should_stop if stores else None)
    if stores and folder is not None:
        stores.use(inputs, result.step)
    return result


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
            ways = "data.validation_split, data.validation_path or data.validation_store"
            raise ConfigError(f"{key} needs data to validate on: set {ways}")
    if config.evaluation is not None:
        from .rollouts import plan_rollouts

        plan_rollouts(config)
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
    given = {name: size for name in TINY_SIZES if (size := getattr(config, name)) is not None}
    save_tiny(base, config.tiny, tokenizer, seed=seed, **given)


def _texts(episode: Episode) -> Iterator[str]:
    """Yield what an episode's messages and tools say, with tools and calls as chat templates commonly write them."""
    for _, _, turn in episode.turns():
        yield from (json.dumps(tool, ensure_ascii=False) for tool in tools_to_openai(turn.tools) or ())
        for message in (*turn.observation, *((turn.action,) if turn.action else ())):
            yield message.role
            yield message.text()
            yield message.reasoning_content or ""
            for call in message.tool_calls:
                yield f'{{"name": "{call.name}", "arguments": {call.arguments_text()}}}'

"""What a user calls data, as sources of episodes: files, episodes, rows, datasets of other libraries."""

from __future__ import annotations

import itertools
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from understudy.errors import ConfigError, FormatError
from understudy.formats import EpisodeReader, Format, Row, detect, get_format, list_files, read_episodes
from understudy.formats.dataset_info import split_reference
from understudy.formats.detect import NUM_SNIFFED_ROWS
from understudy.train.data import EpisodeSource
from understudy.train.data_config import DataSection, Paths, SourceSection
from understudy.types import Episode

from .converted import ConvertedRecords, as_row
from .stores import RunStores

Dataset = str | Path | Iterable[Any]
"""Files, or anything that gives episodes or rows: a list, a generator, a PyTorch or Hugging Face dataset."""

log = logging.getLogger("understudy.train")


def open_sources(
    config: DataSection,
    train_dataset: Dataset | None = None,
    eval_dataset: Dataset | None = None,
    converted: ConvertedRecords | None = None,
    stores: RunStores | None = None,
) -> list[EpisodeSource]:
    """Return what to train and to validate on. Files and stores are looked for now, and read later.

    Args:
        train_dataset, eval_dataset: in place of what the config names.
        converted: makes episodes of each record, in place of a format.
        stores: what is claimed of the config's stores; None reads what could be claimed.

    Raises:
        ConfigError: data is given twice or not at all, it is said twice how records are read, or a file would be both
            trained and validated on.
        FormatError: a path leads to no file.
        StoreError: a store cannot be opened.
    """
    stores = stores or RunStores(config)
    sections = config.by_name()
    if train_dataset is not None and sections:
        raise ConfigError("data is given twice: as train_dataset, and in the config's data section")
    if eval_dataset is not None and config.holds_out:
        raise ConfigError("validation data is given twice: as eval_dataset, and in the config's data section")
    if train_dataset is not None:
        if config.temperature is not None:
            raise ConfigError("data.temperature is for several sources, and train_dataset is one; leave it out")
        source = _source("train_dataset", train_dataset, config.format, config.max_samples, config, converted)
        sources = [replace(source, agents=config.agents, policies=config.policies)]
    else:
        sources = [
            replace(
                _source_of(name, section, config, converted, stores),
                ratio=section.ratio,
                agents=section.agents,
                policies=section.policies,
            )
            for name, section in sections.items()
        ]
    if not sources:
        raise ConfigError("there is no data: set data.path, data.store or data.sources")
    validation: EpisodeSource | None = None
    if eval_dataset is not None:
        given = config.format if config.validation_format == "auto" else config.validation_format
        validation = _source("validation", eval_dataset, given, None, config, converted)
    elif config.validation_path is not None:
        path, given = config.validation_path, config.validation_format
        validation = _source("validation", path, given, None, config, converted)
    if validation is not None:
        files = [section.path for section in sections.values() if section.path is not None]
        trained = files if train_dataset is None else [train_dataset]
        _check_sides(trained, config.validation_path if eval_dataset is None else eval_dataset)
    elif config.validation_store is not None:
        validation = EpisodeSource("validation", stores.validation())
    if validation is not None:
        sources.append(replace(validation, held_out=True, agents=config.agents, policies=config.policies))
    return sources


def _source_of(
    name: str, section: SourceSection, config: DataSection, converted: ConvertedRecords | None, stores: RunStores
) -> EpisodeSource:
    """Return the source that a section of the config names."""
    if section.path is not None:
        return _source(name, section.path, section.format, section.max_samples, config, converted)
    if converted is not None:
        raise ConfigError(f"{name}: a store holds episodes, and convert_record_to_data_func makes them; leave one out")
    return EpisodeSource(name, stores.episodes(name))


def _check_sides(trained: Iterable[Dataset | Paths], validated: Dataset | Paths | None) -> None:
    """Refuse a file that would be validated on and is among those to train on without being asked for.

    A folder or pattern may sweep it up. Only a path that is written on both sides, letter for letter, is meant.
    """
    held_out = [os.fspath(path) for path in _paths(validated) or ()]
    known = {_identity(file) for path in held_out for file in list_files(path) if file != "-"}
    for path in (os.fspath(path) for dataset in trained for path in _paths(dataset) or ()):
        for file in list_files(path) if path not in held_out and path != "-" else ():
            if _identity(file) in known:
                raise ConfigError(
                    f"{file}: would be trained on, because {path} is among the data to train on, and validated on too; "
                    "name only the files to train on, or validate on another file"
                )


def _identity(file: str) -> tuple[int, int]:
    """Return what tells a file from all others, whatever it is called."""
    found = os.stat(file)
    return found.st_dev, found.st_ino


def _source(
    name: str,
    dataset: Dataset | Paths,
    format: str,
    limit: int | None,
    config: DataSection,
    converted: ConvertedRecords | None,
) -> EpisodeSource:
    paths = _paths(dataset)
    if converted is not None and (format != "auto" or (paths is not None and split_reference(paths) is not None)):
        given = f"the format {format!r}" if format != "auto" else "an entry of dataset_info.json"
        raise ConfigError(f"{name}: {given} says how records are read, and so does convert_record_to_data_func; "
                          "leave one out")  # fmt: skip
    if paths is None:
        items = _read_dataset(dataset, converted or format, limit, name, skip_bad=config.skip_bad)
        return EpisodeSource(name, items)
    folder = os.path.dirname(list_files(paths)[0]) or "."
    reader = read_episodes(paths, converted or format.replace("{folder}", folder), skip_bad=config.skip_bad)
    return EpisodeSource(name, _read(reader, limit, name))


def _paths(dataset: Any) -> list[str | Path] | None:
    """Return the paths that a dataset consists of; None for anything else."""
    items = [dataset] if isinstance(dataset, str | Path) else dataset
    if isinstance(items, list | tuple) and items and all(isinstance(item, str | Path) for item in items):
        return list(items)
    return None


def _read(reader: EpisodeReader, limit: int | None, name: str) -> Iterator[tuple[str, Episode]]:
    for episode in itertools.islice(reader, limit):
        yield reader.place, episode
    _tell_of_rejected(reader.reasons, name)


def _read_dataset(
    dataset: Any, format: str | ConvertedRecords, limit: int | None, name: str, *, skip_bad: bool
) -> Iterator[tuple[str, Episode]]:
    reasons: Counter[str] = Counter()
    yield from itertools.islice(_episodes(dataset, format, name, reasons if skip_bad else None), limit)
    _tell_of_rejected(reasons, name)


def _tell_of_rejected(reasons: Counter[str], name: str) -> None:
    if reasons:
        most = "; ".join(f"{count:,} × {reason}" for reason, count in reasons.most_common(3))
        log.warning("%s: %s rows could not be read and were passed over: %s", name, f"{reasons.total():,}", most)


def _episodes(
    dataset: Any, format: str | ConvertedRecords, name: str, rejected: Counter[str] | None
) -> Iterator[tuple[str, Episode]]:
    """Yield the episodes of something that gives episodes or rows, with their places.

    Args:
        rejected: counts rows that cannot be read, by reason; None where the first one is an error.

    Raises:
        ConfigError: it gives something else.
        FormatError: a row cannot be read.
    """
    items = _items(dataset, name)
    first = next(items, None)
    if first is None:
        return
    items = itertools.chain([first], items)
    is_converted = isinstance(format, ConvertedRecords)
    if isinstance(first, Episode) and not is_converted:
        for number, item in enumerate(items, start=1):
            if not isinstance(item, Episode):
                raise ConfigError(f"{name}: item {number} is {type(item).__name__}, but the first one is an Episode")
            yield f"{name}:{number}", item
        return
    rows = (
        Row(item if is_converted else _as_row(item, name), name, number) for number, item in enumerate(items, start=1)
    )
    head = list(itertools.islice(rows, NUM_SNIFFED_ROWS if format == "auto" else 0))
    if isinstance(format, ConvertedRecords):
        decoder: Format = format
    else:
        decoder = detect(head).format if format == "auto" else get_format(format)
    for row in itertools.chain(head, rows):
        place = f"{row.file}:{row.number}"
        try:
            episodes = decoder.decode(row.value, id=place)
        except FormatError as error:
            if rejected is None:
                raise error.at(file=row.file, row=row.number) from error
            rejected[error.reason] += 1
            continue
        yield from ((place, episode) for episode in episodes)


def _items(dataset: Any, name: str) -> Iterator[Any]:
    """Iterate over anything; PyTorch's map-style datasets have a length and indices only."""
    if hasattr(dataset, "__iter__"):
        return iter(dataset)
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        return (dataset[index] for index in range(len(dataset)))
    raise ConfigError(f"{name}: {type(dataset).__name__} is no path, no iterable and no dataset with a length")


def _as_row(item: Any, name: str) -> dict[str, Any]:
    row = as_row(item)
    if row is None:
        raise ConfigError(f"{name}: {type(item).__name__} is neither an Episode nor a row (a mapping, or has messages)")
    return row

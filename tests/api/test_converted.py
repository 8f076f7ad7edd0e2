"""A user's own function from records to what is trained on, as AgentRL has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import understudy
from tests.training import WEATHER, config, weather_episodes
from understudy.api.converted import ConvertedRecords
from understudy.api.datasets import open_sources
from understudy.errors import ConfigError, FormatError
from understudy.formats import read_episodes
from understudy.train.config import TrainConfig
from understudy.train.data_config import DataSection
from understudy.types import Episode

from .test_datasets import RecordData

ARGS = TrainConfig(output_dir="runs/x", model={"path": "nowhere"})
QUESTIONS = [{"pairs": [["1+1?", "2"], ["2+2?", "4"]]}, {"pairs": []}, {"pairs": [["3+3?", "6"]]}]


def messages(question: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


async def convert_record_to_data_func(record: dict[str, Any], args: TrainConfig) -> AsyncGenerator[RecordData, None]:
    assert args.output_dir
    for question, answer in record["pairs"]:
        await asyncio.sleep(0)
        yield RecordData(messages=messages(question, answer), scores={1: 0.5})


def as_mappings(record: dict[str, Any], args: TrainConfig) -> Iterator[dict[str, Any]]:
    for question, answer in record["pairs"]:
        yield {"messages": messages(question, answer), "scores": {1: 0.5}}


def episodes(dataset: Any, convert: Callable[..., Any], **data: Any) -> list[tuple[str, Episode]]:
    (source,) = open_sources(DataSection(**data), dataset, converted=ConvertedRecords(convert, ARGS))
    return list(source.episodes)


@pytest.mark.parametrize("convert", [convert_record_to_data_func, as_mappings])
@pytest.mark.parametrize("kind", ["list", "file"])
def test_each_record_becomes_what_the_function_yields(kind: str, convert: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in QUESTIONS))
    found = episodes(QUESTIONS, convert) if kind == "list" else episodes(None, convert, path=str(file))
    place = "train_dataset" if kind == "list" else str(file)
    assert [where for where, _ in found] == [f"{place}:1", f"{place}:1", f"{place}:3"]
    assert [episode.id for _, episode in found] == [f"{place}:1", f"{place}:1/1", f"{place}:3"]
    assert [turn.action.text() for _, episode in found for _, _, turn in episode.turns()] == ["2", "4", "6"]
    assert all(turn.annotations == {"score": 0.5} for _, episode in found for _, _, turn in episode.turns())


def test_a_record_may_be_any_object_and_episodes_may_be_yielded() -> None:
    expected = weather_episodes()
    found = episodes(range(len(expected)), lambda index, args: [expected[index]])
    assert [episode for _, episode in found] == list(expected)


def test_one_event_loop_runs_all_of_it() -> None:
    loops = []

    async def convert(record: dict[str, Any], args: TrainConfig) -> AsyncGenerator[dict[str, Any], None]:
        loops.append(asyncio.get_running_loop())
        yield {"messages": messages("a", "b")}

    assert len(episodes(QUESTIONS, convert)) == 3
    assert len(set(loops)) == 1


def test_a_loop_that_is_running_does_not_matter() -> None:
    async def notebook() -> list[tuple[str, Episode]]:
        return episodes(QUESTIONS, convert_record_to_data_func)

    assert asyncio.run(notebook()) == episodes(QUESTIONS, convert_record_to_data_func)


def fails(record: Any, args: TrainConfig) -> Iterator[Any]:
    yield {"messages": messages(*record["pairs"][0])}


async def fails_later(record: Any, args: TrainConfig) -> AsyncGenerator[Any, None]:
    for made in fails(record, args):
        yield made


async def no_generator(record: Any, args: TrainConfig) -> dict[str, Any]:
    return {"messages": []}


@pytest.mark.parametrize(
    ("convert", "said"),
    [
        (fails, r"train_dataset:2: fails failed at test_converted.py:\d+ with IndexError: list index out of range"),
        (fails_later, r"train_dataset:2: fails_later failed at test_converted.py:\d+ with IndexError: list index"),
        (no_generator, r"train_dataset:1: no_generator returned coroutine \(mend: write it with yield\)"),
        (lambda record, args: None, r"train_dataset:1: <lambda> returned NoneType"),
        (lambda record, args: {"messages": []}, r"train_dataset:1: <lambda> returned dict"),
        (lambda record, args: [None], r"train_dataset:1: record 1 of <lambda> is NoneType"),
        (lambda record, args: [5], r"train_dataset:1: record 1 of <lambda> is int \(mend: yield RecordData, a mapping"),
        (lambda record, args: [{"messages": [{"content": "x"}]}], r"messages\[0\].role: record 1 of <lambda>: .*role"),
    ],
)
def test_what_goes_wrong_is_said_of_the_record(convert: Callable[..., Any], said: str) -> None:
    with pytest.raises(FormatError, match=said):
        episodes(QUESTIONS, convert)


def test_records_that_fail_are_passed_over_where_bad_rows_are(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "understudy"):
        assert len(episodes(QUESTIONS, fails, skip_bad=True)) == 2
    assert "1 rows could not be read" in caplog.text


def test_how_records_are_read_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="the format 'messages' says how records are read, and so does convert_record"
    ):
        episodes(QUESTIONS, as_mappings, format="messages")
    entry = tmp_path / "dataset_info.json"
    entry.write_text('{"mine": {"file_name": "rows.json"}}')
    with pytest.raises(ConfigError, match=r"data: an entry of dataset_info.json says how records are read"):
        episodes(None, as_mappings, path=f"{entry}#mine")


def test_training_and_validation_go_through_it(base: Path, tmp_path: Path) -> None:
    """The same losses as without, for a function that yields what is there."""
    settings = {"data": {"validation_path": str(WEATHER)}, "train": {"max_steps": 2}}
    records = list(read_episodes(WEATHER))

    async def convert(index: int, args: TrainConfig) -> AsyncGenerator[Episode, None]:
        yield records[index]

    plain = config(base, tmp_path / "plain", **settings)
    hooked = config(base, tmp_path / "hooked", train={"max_steps": 2})
    hooked["data"] = {}
    expected = understudy.train(plain)
    found = understudy.train(hooked, range(6), range(6), convert_record_to_data_func=convert)
    assert (found.loss, found.eval_loss) == (expected.loss, expected.eval_loss)
    planned = understudy.dry_run(hooked, range(6), range(6), convert_record_to_data_func=convert)
    assert planned.plans.num_steps == 2

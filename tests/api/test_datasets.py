"""Whatever a user calls data gives the same examples."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
import torch.utils.data

from tests.training import WEATHER, weather_episodes
from understudy.api.datasets import open_sources
from understudy.errors import ConfigError, FormatError
from understudy.formats import get_format, write_episodes
from understudy.train.data_config import DataSection
from understudy.types import Episode


@dataclasses.dataclass
class RecordData:
    """AgentRL's class, as its guide shows it."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    scores: dict[int, float] = dataclasses.field(default_factory=dict)
    advantages: dict[int, float] = dataclasses.field(default_factory=dict)
    created_at_step: dict[int, int] = dataclasses.field(default_factory=dict)
    reward: float = 1.0
    step: int = -1
    logprobs: dict[int, Any] | None = None
    record_id: str | None = None


class RecordModel(pydantic.BaseModel):
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    advantages: dict[int, float] = {}


class PlainRecord:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)
        self._cache = object()


class MapStyle(torch.utils.data.Dataset):
    """Has a length and indices, and answers any index, as many datasets do."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index % len(self.rows)]


class IterableStyle(torch.utils.data.IterableDataset):
    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in WEATHER.read_text().splitlines()]


def given(row: dict[str, Any]) -> dict[str, Any]:
    return {"messages": row["messages"], "tools": row["tools"]}


def episodes(dataset: Any, **config: Any) -> list[Episode]:
    (source,) = open_sources(DataSection(**config), dataset)
    return [episode for _, episode in source.episodes]


def conversations(found: list[Episode]) -> list[Any]:
    return [(e.trajectories[0].messages(), e.trajectories[0].tools()) for e in found]


EXPECTED = conversations(list(weather_episodes()))


@pytest.mark.parametrize(
    "dataset",
    [
        str(WEATHER),
        WEATHER,
        [WEATHER],
        list(weather_episodes()),
        iter(weather_episodes()),
        rows(),
        [RecordData(**given(row)) for row in rows()],
        [RecordModel(**given(row)) for row in rows()],
        [PlainRecord(**given(row), advantages={}) for row in rows()],
        MapStyle(rows()),
        MapStyle([RecordData(**given(row)) for row in rows()]),
        IterableStyle(rows()),
    ],
    ids=lambda value: type(value).__name__ + (f" of {type(value[0]).__name__}" if isinstance(value, list) else ""),
)
def test_paths_episodes_rows_records_and_datasets_are_the_same_data(dataset: Any) -> None:
    assert conversations(episodes(dataset)) == EXPECTED


def test_what_a_record_says_about_its_messages_reaches_the_turns() -> None:
    record = RecordData(**given(rows()[0]), advantages={2: 0.5, 4: -0.25})
    (episode,) = episodes([record])
    turns = [turn for turn in episode.trajectories[0].turns if turn.action is not None]
    assert [turn.annotations["advantage"] for turn in turns] == [0.5, -0.25]


@pytest.mark.parametrize("format", ["native", "messages", "sharegpt", "record_data", "trajectories", "input_output"])
def test_every_format_can_be_given_as_rows(format: str) -> None:
    encoded = [row for episode in weather_episodes() for row in get_format(format).encode(episode).rows]
    assert len(episodes(encoded)) == 6
    assert len(episodes(encoded, format=format)) == 6


def test_each_episode_comes_with_its_place() -> None:
    (source,) = open_sources(DataSection(path=str(WEATHER)))
    assert [place for place, _ in source.episodes][:2] == [f"{WEATHER}:1", f"{WEATHER}:2"]
    (source,) = open_sources(DataSection(), rows())
    assert [place for place, _ in source.episodes][1] == "train_dataset:2"


def test_only_as_many_are_read_as_are_wanted() -> None:
    assert len(episodes(None, path=str(WEATHER), max_samples=2)) == 2
    assert len(episodes(rows(), max_samples=4)) == 4


def test_a_bad_row_is_refused_with_its_place_or_counted(tmp_path, caplog) -> None:
    bad = rows()
    bad[3]["messages"] = [{"content": "no role"}]
    with pytest.raises(FormatError, match=r"train_dataset:4: messages\[0\].role"):
        episodes(bad, format="messages")
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in bad))
    with caplog.at_level("WARNING", "understudy"):
        assert len(episodes(None, path=str(file), skip_bad=True)) == 5
        assert len(episodes(bad, skip_bad=True, max_samples=5)) == 5
    assert re.findall(r"(\w+): 1 rows could not be read", caplog.text) == ["data", "train_dataset"]


def test_a_mapping_finds_what_lies_beside_the_data(tmp_path) -> None:
    (tmp_path / "tools.json").write_text(json.dumps({"airline": rows()[0]["tools"]}))
    row = {"task_id": 1, "trial": 0, "traj": rows()[0]["messages"], "reward": 1.0, "info": {"task": {}}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    mapping = Path(__file__).resolve().parents[2] / "examples" / "mappings" / "tau_bench.yaml"
    (episode,) = episodes(None, path=str(tmp_path / "rows.jsonl"), format=f"{mapping}?tools.file={{folder}}/tools.json")
    assert [tool.name for tool in episode.trajectories[0].tools()] == ["get_forecast", "set_alert"]


def test_several_sources_keep_their_names_ratios_and_agents(tmp_path) -> None:
    shutil.copy(WEATHER, tmp_path / "b.jsonl")
    sections = {
        "a": {"path": str(WEATHER), "ratio": 2, "agents": ["planner"]},
        "b": {"path": str(tmp_path / "b.jsonl"), "ratio": 1, "policies": ["p"]},
    }
    a, b = open_sources(DataSection(sources=sections))
    assert (a.name, a.ratio, a.agents, b.name, b.ratio, b.policies) == ("a", 2, ("planner",), "b", 1, ("p",))


def test_agents_are_chosen_for_all_sources_at_once_and_for_what_is_validated_on(tmp_path) -> None:
    shutil.copy(WEATHER, tmp_path / "b.jsonl")
    sections = {"a": {"path": str(WEATHER)}, "b": {"path": str(tmp_path / "b.jsonl"), "agents": ["critic"]}}
    config = DataSection(sources=sections, agents=["planner"], policies=["p"], validation_path=str(WEATHER))
    assert [source.agents for source in open_sources(config)] == [("planner",), ("critic",), ("planner",)]
    assert {source.policies for source in open_sources(config)} == {("p",)}
    (one, held_out) = open_sources(DataSection(agents=["planner"]), WEATHER, WEATHER)
    assert one.agents == held_out.agents == ("planner",)


def test_a_parquet_folder_can_be_named(tmp_path) -> None:
    write_episodes(tmp_path / "part-0.parquet", weather_episodes()[:3])
    write_episodes(tmp_path / "part-1.parquet", weather_episodes()[3:])
    assert conversations(episodes(tmp_path)) == EXPECTED


@pytest.mark.parametrize(
    ("config", "arguments", "said"),
    [
        ({}, (), "there is no data"),
        ({"path": "x"}, ([],), "data is given twice"),
        ({"validation_split": 0.5}, ([], []), "validation data is given twice"),
        ({"temperature": 2}, ([],), "data.temperature is for several sources, and train_dataset is one"),
    ],
)
def test_data_is_given_once_and_a_mix_is_of_several(
    config: dict[str, Any], arguments: tuple[Any, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        open_sources(DataSection(**config), *arguments)


@pytest.mark.parametrize("path", ["", "*.jsonl", "link.jsonl", "./validation.jsonl", "dataset_info.json#held"])
def test_a_file_that_is_validated_on_is_not_swept_up_by_what_is_trained_on(tmp_path, path: str) -> None:
    write_episodes(tmp_path / "train.jsonl", weather_episodes()[:4])
    write_episodes(tmp_path / "validation.jsonl", weather_episodes()[4:])
    declared = {"held": {"file_name": "validation.jsonl", "formatting": "openai", "columns": {"messages": "messages"}}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(declared))
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "validation.jsonl")
    held_out, wide = str(tmp_path / "validation.jsonl"), f"{tmp_path}/{path}"
    refused = pytest.raises(ConfigError, match=r"would be trained on, because .* and validated on too; name only")
    with refused:
        open_sources(DataSection(path=wide, validation_path=held_out))
    with refused:
        open_sources(DataSection(path=[held_out, str(tmp_path)], validation_path=held_out))
    with refused:
        open_sources(DataSection(sources={"a": {"path": held_out}}, validation_path=wide))
    with refused:
        open_sources(DataSection(), Path(tmp_path, "link.jsonl"), [held_out])


@pytest.mark.parametrize("path", ["train.jsonl", "validation.jsonl"])
def test_a_file_of_its_own_and_one_that_is_written_on_both_sides_can_be_validated_on(tmp_path, path: str) -> None:
    write_episodes(tmp_path / "train.jsonl", weather_episodes()[:4])
    write_episodes(tmp_path / "validation.jsonl", weather_episodes()[4:])
    section = DataSection(path=str(tmp_path / path), validation_path=str(tmp_path / "validation.jsonl"))
    assert [source.held_out for source in open_sources(section)] == [False, True]


def test_what_is_validated_on_may_have_a_format_of_its_own() -> None:
    encoded = {
        name: [get_format(name).encode(e).rows[0] for e in weather_episodes()] for name in ("sharegpt", "messages")
    }
    section = DataSection(format="sharegpt", validation_format="messages")
    train, validation = open_sources(section, encoded["sharegpt"], encoded["messages"])
    assert len(list(train.episodes)) == len(list(validation.episodes)) == 6
    _, validation = open_sources(DataSection(format="sharegpt"), encoded["sharegpt"], encoded["sharegpt"])
    assert len(list(validation.episodes)) == 6


@pytest.mark.parametrize("dataset", [[1, 2], [object()], 5, [weather_episodes()[0], {"messages": []}]])
def test_what_is_no_data_is_refused_by_its_type(dataset: Any) -> None:
    with pytest.raises(ConfigError, match=r"train_dataset: .*(int|object|dict)"):
        episodes(dataset)

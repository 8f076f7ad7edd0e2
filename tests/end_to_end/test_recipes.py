"""Every recipe that ships loads, and its dry run passes on a sample of the data that it is for, with a tiny model."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.training import WEATHER, weather_episodes
from understudy.api import dry_run, read_config
from understudy.api.pipeline import plan, read_run_config
from understudy.config.document import read_document
from understudy.formats import read_rows, write_episodes
from understudy.formats.mapping import names_mapping
from understudy.models.tiny import CHAT_TEMPLATE
from understudy.types import Episode

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
RUNS = [path for path in RECIPES if "model" not in read_document(path).value]
"""Recipes of whole runs; the others are of training alone."""
NUM_SAMPLES = 6
TINY = "{tiny: qwen3, hidden_size: 32, num_layers: 1, vocab_size: 400}"

CORPUS = {
    "tau_bench.yaml": "tau_bench/gpt4o_airline_tasks00-39.jsonl.zst",
    "agentgym.yaml": "agentgym/babyai_train.parquet",
    "mint.yaml": "mint/mint_gpt4_feedback.jsonl.zst",
}
"""Mapping -> real rows that it reads."""


@pytest.fixture
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes name their mappings relative to the project's folder."""
    monkeypatch.chdir(ROOT)


def with_advantages(episode: Episode) -> Episode:
    (trajectory,) = episode.trajectories
    turns = tuple(replace(turn, annotations={"advantage": 0.5 + n}) for n, turn in enumerate(trajectory.turns))
    return replace(episode, trajectories=(replace(trajectory, turns=turns),))


def petting_llms_rows() -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in WEATHER.read_text().splitlines()]
    names = {"policy_name": "shared_model", "env_name": "weather", "env_success": True}
    agents = ("planner", "solver")
    places = [{"agent_name": agents[n % 2], "env_idx": n // 2, "rollout_idx": 0, "turn_idx": n % 2} for n in range(6)]
    return [{"messages": row["messages"], "metadata": names | place} for row, place in zip(rows, places, strict=True)]


def sample(format: str, folder: Path, name: str, recipe: str, corpus: Callable[[], Path]) -> Path:
    """Write a few rows of a format, made of the example conversations or taken from the real data."""
    folder.mkdir(parents=True, exist_ok=True)
    if names_mapping(format):
        mapping = Path(format.partition("?")[0]).name
        data = corpus() / "corpus" / CORPUS[mapping]
        rows = [row.value for row in itertools.islice(read_rows(data), NUM_SAMPLES)]
        tools = data.parent / "tools.json"
        if tools.exists():
            (folder / "tools.json").write_bytes(tools.read_bytes())
    elif recipe == "petting_llms":
        rows = petting_llms_rows()
    else:
        file = folder / f"{name}.jsonl"
        write_episodes(file, map(with_advantages, weather_episodes()), "messages" if format == "auto" else format)
        return file
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("recipe", [path for path in RECIPES if path not in RUNS], ids=lambda path: path.stem)
def test_a_recipe_loads_and_its_dry_run_passes_on_a_sample(
    recipe: Path, tmp_path: Path, request: pytest.FixtureRequest, in_the_project: None
) -> None:
    def corpus() -> Path:
        return request.getfixturevalue("test_data")

    config = read_config(recipe)
    model = read_document(recipe).value["model"]
    overrides = [f"model={TINY}"]
    if "path" not in model:
        assert config.model.tiny is not None
    for name, source in config.data.by_name().items():
        file = sample(source.format, tmp_path / name, name, recipe.stem, corpus)
        key = f"data.sources.{name}.path" if config.data.sources else "data.path"
        overrides.append(f"{key}={file}")
    found = dry_run(recipe, overrides=overrides)
    assert all(report.num_examples > 0 for report in found.data.reports)
    assert found.plans.num_steps > 0
    assert found.memory.total > 0
    assert bool(found.data.validation) == config.data.holds_out
    assert (found.num_trained < found.num_parameters) == (config.lora is not None)


@pytest.mark.parametrize("recipe", RUNS, ids=lambda path: path.stem)
def test_a_recipe_of_a_run_passes_every_check_of_its_stages(
    recipe: Path, base: Path, tmp_path: Path, in_the_project: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    overrides = [f"output_dir={tmp_path / 'run'}"]
    if "path" in read_document(recipe).value["train"]["model"]:
        overrides.append(f"train.model.path={base}")
    config = read_run_config(recipe, overrides)
    assert [one.state for one in plan(config)] == ["new"] * len(config.stages)


def test_every_recipe_says_how_to_start_it() -> None:
    for recipe in RECIPES:
        verb = "run" if recipe in RUNS else "train"
        assert f"understudy {verb} recipes/{recipe.name}" in recipe.read_text(), recipe


def test_the_smallest_recipe_trains_out_of_the_box(tmp_path: Path, in_the_project: None) -> None:
    import understudy

    result = understudy.train(
        ROOT / "recipes" / "weather.yaml", overrides=[f"output_dir={tmp_path / 'run'}", "train.max_steps=12"]
    )
    assert result.step == 12
    assert result.eval_loss is not None


def test_the_template_without_tools_is_that_of_tiny_models_else() -> None:
    text = (ROOT / "recipes" / "no_tools.jinja").read_text()
    without_comment = re.sub(r"\{#-.*?-#\}\n", "", text, count=1, flags=re.DOTALL)
    tiny = CHAT_TEMPLATE.read_text()
    assert without_comment == re.sub(r"\{%- if tools -%\}\n.*?\n\{%- endif -%\}\n", "", tiny, flags=re.DOTALL) != tiny

"""The page for users of other systems: our commands run, our keys exist, and each of theirs has its row.

Models and data stand in the folder under the names that the page gives them, small ones, and a server answers where an
endpoint is asked. Commands of ours run in this process, which spares loading torch for each; what needs a launcher or
a shell does not.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.running import run
from tests.end_to_end.test_readme import ROOT, commands_in, differs
from tests.end_to_end.test_recipes import petting_llms_rows, with_advantages
from tests.openai_server import OpenAIServer
from tests.training import weather_episodes
from understudy import registry
from understudy.api.pipeline.config import RunConfig
from understudy.config import ConfigModel
from understudy.config.model import models_in, names_of
from understudy.formats import write_episodes
from understudy.train.config import TrainConfig

PAGE = ROOT / "docs" / "coming_from.md"
TEXT = PAGE.read_text(encoding="utf-8")
MODELS = ("Qwen2.5-0.5B-Instruct", "Qwen2.5-1.5B-Instruct", "Qwen3-1.7B", "Qwen3-4B", "Qwen3-8B")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S))
MISSING = SECTIONS.pop("Not here yet")


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the page names. Sections do not build on each other."""
    path = tmp_path_factory.mktemp("coming_from")
    for name in ("examples", "recipes"):
        shutil.copytree(ROOT / name, path / name)
    for model in MODELS:
        shutil.copytree(base, path / "Qwen" / model)
    write_data(path)
    with OpenAIServer() as server, contextlib.chdir(path), pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", server.base_url)
        patch.setenv("OPENAI_API_KEY", "none")
        patch.setenv("NUM_GPUS", "2")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield path


def write_data(folder: Path) -> None:
    """Write a few rows as each of the systems has them."""
    for name in ("data", "assets", "sft_data_code"):
        (folder / name).mkdir()
    episodes = weather_episodes()
    write_episodes(folder / "trajectories.jsonl", episodes, "input_output")
    write_episodes(folder / "trajectories.json", episodes, "trajectories")
    write_episodes(folder / "data" / "merged_gym_sft.json", episodes, "sharegpt")
    for kind in ("jsonl", "parquet"):
        write_episodes(folder / "assets" / f"math500.{kind}", map(with_advantages, episodes), "record_data")
    rows = "".join(json.dumps(row) + "\n" for row in petting_llms_rows())
    (folder / "sft_data_code" / "sft_data_20241203_123456.jsonl").write_text(rows)
    (folder / "sft_data_code" / "sft_data_20241203_123456_stats.json").write_text('{"total_episodes": 6}')
    columns = {"messages": "conversations", "system": "system", "tools": "tools"}
    entry = {"file_name": "merged_gym_sft.json", "formatting": "sharegpt", "columns": columns}
    (folder / "data" / "dataset_info.json").write_text(json.dumps({"merged_gym_sft": entry}))


@pytest.mark.parametrize("name", SECTIONS)
def test_what_a_section_says_is_typed_here_does_what_it_says(folder: Path, name: str) -> None:
    found = commands_in(SECTIONS[name])
    assert found
    for command, expected in found:
        status, printed = run(command, folder)
        assert status == 0, f"{command}\n{printed}"
        assert differs(expected, printed) is None, command
    for block in re.findall(r"^```python\n(.*?)^```", SECTIONS[name], re.M | re.S):
        exec(compile(block, str(PAGE), "exec"), {})


def rows(section: str) -> list[tuple[str, str]]:
    """Return the two columns of each row of a section's tables."""
    found = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in section.splitlines() if line.startswith("| ")]
    return [(there, here) for there, here in found if there != "there"]


def theirs(section: str) -> set[str]:
    """Return the keys in a section's blocks of theirs: options, ``key=``, and ``key:`` at the beginning of a line."""
    blocks = "\n".join(re.findall(r"^```(?:bash|yml|py)\n(.*?)^```", section, re.M | re.S))
    options = re.findall(r"--[\w-]+", blocks)
    given = re.findall(r"(?<![-\w.])\+?([a-zA-Z_][\w.]*)=(?!=)", blocks)
    return {*options, *given, *re.findall(r"^(\w+):", blocks, re.M)}


VARIABLES_OF_PYTHON = {"args", "config", "trainer", "training", "sft"}
"""Names in blocks of Python that are given a value or a section, and are no keys."""


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_of_theirs_has_a_row(name: str) -> None:
    # AgentRL's keys are the same as options and in Python, and have one row for both.
    covered = {
        key.removeprefix("--")
        for there, _ in [*rows(SECTIONS[name]), *rows(MISSING)]
        for quoted in re.findall(r"`([^`]+)`", there)
        for key in (quoted, quoted.partition("=")[0])
    }
    found = {key.removeprefix("--") for key in theirs(SECTIONS[name]) - VARIABLES_OF_PYTHON}
    assert len(found) >= 5
    assert found - covered == set()


OF_A_RUN = ("collect", "curate", "evaluate", "iterations", "loop")
COMPONENTS = {"policy": ("policies", ["endpoint"]), "environment": ("environments", ["math", "team"])}
"""Key of a component -> its family, and those of it whose arguments the page names."""


def exists(key: str) -> bool:
    """Return whether a dotted key is one of training, or one of a run's own."""
    if ".arguments." in key:
        place, _, argument = key.partition(".arguments.")
        family, names = COMPONENTS[place.rpartition(".")[2]]
        return any(argument in inspect.signature(registry.load(family, name)).parameters for name in names)
    model: type[ConfigModel] = RunConfig if key.partition(".")[0] in OF_A_RUN else TrainConfig
    for name in key.split(".") if key else ():
        names = names_of(model)
        if name not in names:
            return False
        (model,) = models_in([model.model_fields[names[name]].annotation]) or [ConfigModel]
    return True


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_of_ours_that_the_page_names_exists(name: str) -> None:
    sections = {*TrainConfig.model_fields, *OF_A_RUN}
    keys = {
        match[1]
        for _, here in rows(SECTIONS[name])
        for quoted in re.findall(r"`([^`]+)`", here)
        if (match := re.match(r"([a-z_]+(?:\.[a-z_]+)*)(?:[=:] ?\S+)?$", quoted))
        and match[1].partition(".")[0] in sections
        and not quoted.endswith((".jsonl", ".json", ".png", ".yaml"))
    }
    assert len(keys) >= 8
    assert {key for key in keys if not exists(key)} == set()

"""A collection goes on with the weights that it began with, whoever of those who play has them, or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.collect.test_collection import QUIET, config, episodes, run
from tests.training import make_base
from understudy.collect import collect
from understudy.collect.collection import JOURNAL
from understudy.collect.fingerprint import fingerprint_models, models_played
from understudy.collect.journal import Journal
from understudy.errors import ConfigError
from understudy.types import Episode

SHORT: dict[str, Any] = {"environment": {"name": "math"}, "num_episodes": 2, "max_turns": 1}


def local(model: Path | str) -> dict[str, Any]:
    return {"name": "local", "arguments": {"model": str(model), "max_new_tokens": 4}}


@pytest.fixture
def model(base: Path, tmp_path: Path) -> Path:
    """A model to be trained anew."""
    return Path(shutil.copytree(base, tmp_path / "model"))


def train_anew(model: Path) -> None:
    """Put other weights into a model's folder."""
    shutil.rmtree(model, ignore_errors=True)
    make_base(model, hidden_size=16)


def noted(folder: Path) -> dict[str, str]:
    models: dict[str, str] = json.loads((folder / "provenance.json").read_text())["data"]["models"]
    return models


@pytest.mark.parametrize(
    ("fields", "models"),
    [
        ({}, ["acts"]),
        ({"policies": {"agent": local("one"), "other": local("two")}}, ["acts", "one", "two"]),
        ({"policy": {"name": "expert"}, "labeler": local("labels")}, ["labels"]),
        ({"policy": {"name": "mixture", "arguments": {"chance": 0.5, "other": local("mixes")}}}, ["mixes"]),
        (
            {"policy": {"name": "planner", "arguments": {"policy": local("acts"), "world_model": "imagines"}}},
            ["imagines", "acts"],
        ),
        ({"environment": {"name": "dream", "arguments": {"world_model": {"model": "dreams"}}}}, ["acts", "dreams"]),
        ({"policy": {"name": "endpoint", "arguments": {"model": "served"}}}, []),
    ],
    ids=["policy", "agents", "labeler", "mixture", "planner", "dream", "endpoint"],
)
def test_every_model_that_plays_is_found(tmp_path: Path, fields: dict[str, Any], models: list[str]) -> None:
    assert models_played(config(tmp_path, **{"policy": local("acts")} | fields).components) == models


@pytest.mark.parametrize("who", ["policy", "agents", "labeler", "mixture"])
def test_episodes_of_weights_that_have_changed_are_not_mixed_with_those_of_the_new_ones(
    model: Path, tmp_path: Path, who: str
) -> None:
    fields: dict[str, Any] = {
        "policy": {"policy": local(model)},
        "agents": {"policy": None, "policies": {"agent": local(model)}},
        "labeler": {"labeler": local(model)},
        "mixture": {"policy": {"name": "mixture", "arguments": {"chance": 0.5, "policy": local(model)}}},
    }[who]
    first = run(tmp_path / "out", **SHORT | fields)
    before = noted(tmp_path / "out")
    assert list(before) == [str(model)]
    more = SHORT | fields | {"num_episodes": 3}
    assert run(tmp_path / "out", **more).num_played == 1
    train_anew(model)
    with pytest.raises(ConfigError, match=rf"out: holds episodes of {model} as it was before.*; overwrite it, or name"):
        run(tmp_path / "out", **more | {"num_episodes": 4})
    assert (len(episodes(first)), noted(tmp_path / "out")) == (3, before)
    assert run(tmp_path / "other", **more).num_played == 3
    assert collect(config(tmp_path / "out", **more), overwrite=True, console=QUIET).num_played == 3
    assert run(tmp_path / "out", **more).num_played == 0


def test_what_was_interrupted_goes_on_with_the_same_weights_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Journal.append

    def append(self: Journal, episode: Episode) -> None:
        keep(self, episode)
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", append)
    for folder in ("same", "other"):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / folder, **SHORT, policy=local(model))
        assert (tmp_path / folder / JOURNAL).exists()
    monkeypatch.undo()
    shutil.copytree(model, tmp_path / "copy")  # other times, the same weights
    shutil.rmtree(model)
    (tmp_path / "copy").rename(model)
    assert run(tmp_path / "same", **SHORT, policy=local(model)).num_played == 1
    train_anew(model)
    with pytest.raises(ConfigError, match="its weights have changed since"):
        run(tmp_path / "other", **SHORT, policy=local(model))


def test_a_model_that_was_away_in_between_is_still_known(model: Path, tmp_path: Path) -> None:
    run(tmp_path / "out", **SHORT, policy=local(model))
    before = noted(tmp_path / "out")
    for is_empty_folder in (False, True):
        shutil.rmtree(model, ignore_errors=True)
        if is_empty_folder:
            model.mkdir()
        assert run(tmp_path / "out", **SHORT, policy=local(model)).num_played == 0
        assert noted(tmp_path / "out") == before
    train_anew(model)
    with pytest.raises(ConfigError, match="its weights have changed since"):
        run(tmp_path / "out", **SHORT, policy=local(model))


@pytest.mark.parametrize("text", ["{", "[]", '{"starts": [], "data": null}'])
def test_a_folder_that_is_no_run_of_ours_is_left_to_who_opens_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "provenance.json").write_text(text)
    assert fingerprint_models(tmp_path, config(tmp_path).components) == {}
    assert fingerprint_models(tmp_path / "provenance.json", config(tmp_path).components) == {}

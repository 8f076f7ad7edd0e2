"""Trackers are foreign code: one that fails is told of, and costs no run."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from transformers.integrations import integration_utils
from transformers.trainer_callback import TrainerCallback

from understudy.errors import ConfigError, MissingDependency, TrainError
from understudy.train.config import TrainSection
from understudy.train.trackers import Trackers, check_trackers


class Recording(TrainerCallback):
    """Keeps what it is told."""

    told: list[tuple[int, dict[str, float]]]

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        type(self).told.append((state.global_step, logs))


class FailsAtStart(TrainerCallback):
    def on_train_begin(self, *_: Any, **__: Any) -> None:
        raise OSError("no route to host")


class FailsLater(TrainerCallback):
    def on_log(self, *_: Any, **__: Any) -> None:
        raise OSError("connection reset")


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    Recording.told = []
    more = {"recording": Recording, "fails_at_start": FailsAtStart, "fails_later": FailsLater}
    table = integration_utils.INTEGRATION_TO_CALLBACK | more
    monkeypatch.setattr(integration_utils, "INTEGRATION_TO_CALLBACK", table)


def trackers(tmp_path: Path, *names: str) -> Trackers:
    return Trackers(names, tmp_path, TrainSection(), nn.Linear(1, 1), num_steps=2)


def test_a_tracker_that_cannot_start_stops_the_run_before_its_first_step(known: None, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"report_to: fails_at_start does not start: OSError: no route to host \(mend"):
        trackers(tmp_path, "recording", "fails_at_start")


def test_a_tracker_that_fails_later_is_told_of_once_and_the_others_go_on(
    known: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    both = trackers(tmp_path, "fails_later", "recording")
    with caplog.at_level(logging.WARNING):
        both.log(1, {"loss": 2.0})
        both.log(2, {"loss": 1.0})
        both.close()
    assert [message for message in caplog.messages if "fails_later" in message] == [
        "fails_later failed and gets no more metrics; metrics.jsonl has all: OSError: connection reset"
    ]
    assert Recording.told == [(1, {"loss": 2.0}), (2, {"loss": 1.0})]


def test_a_tracker_finds_its_project_where_it_looks_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found: list[str | None] = []

    class LooksUp(TrainerCallback):
        def on_train_begin(self, args: Any, *_: Any, **__: Any) -> None:
            found.append(os.environ.get("WANDB_PROJECT"))
            found.append(args.project)

    table = {"wandb": LooksUp, "trackio": LooksUp}
    monkeypatch.setattr(integration_utils, "INTEGRATION_TO_CALLBACK", table)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    Trackers(["wandb", "trackio"], tmp_path, TrainSection(project="agents"), nn.Linear(1, 1), num_steps=2)
    assert found == ["agents", "agents", "mine", "agents"]
    assert os.environ["WANDB_PROJECT"] == "mine"
    Trackers(["wandb"], tmp_path, TrainSection(), nn.Linear(1, 1), num_steps=2)
    assert found[4] == "mine"


def test_unknown_and_absent_trackers_are_errors_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"unknown tracker 'tensorbord'. Did you mean 'tensorboard'"):
        check_trackers(["tensorbord"])
    with pytest.raises(MissingDependency, match="pip install clearml"):
        check_trackers(["clearml"])

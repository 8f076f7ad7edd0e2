"""A run trains on the rows of a store as on a file, holds them while it lives, and counts them when it has finished."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import understudy
from tests.api.test_resume import stopping_after
from tests.training import WEATHER, config, metrics, same, train, weather_episodes, weights
from understudy.api.pipeline.config import RunConfig
from understudy.cli.main import main
from understudy.config import config_from_dict
from understudy.errors import CheckpointError, ConfigError, StoreError, UnderstudyError
from understudy.stores import LeaseLost, open_store
from understudy.train.config import TrainConfig
from understudy.train.reporting import Reporter
from understudy.types import Episode


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A store of the six example conversations."""
    path = tmp_path / "pool.db"
    with open_store(path, create=True) as store:
        store.add(weather_episodes())
    return path


def from_store(pool: Path, **settings: Any) -> dict[str, Any]:
    """Return the sections that let a run train from a store."""
    return {"data": {"path": None, "store": {"path": str(pool), **settings}}}


def trained(pool: Path) -> dict[int, int]:
    with open_store(pool) as store:
        return dict(store.counts().splits["train"].num_by_trained_count)


def num_leased(pool: Path) -> int:
    with open_store(pool) as store:
        return store.counts().splits["train"].num_leased


def steal(pool: Path, limit: int | None = None) -> None:
    """Let all leases run out, and claim rows in their place."""
    with sqlite3.connect(pool) as connection:
        connection.execute("UPDATE claims SET lease_until = 0")
    connection.close()
    with open_store(pool) as store:
        assert store.claim("thief", limit=limit).rows


def copies(number: int) -> list[Episode]:
    """Return the example conversations under other names."""
    return [replace(one, id=f"{one.id}-{number}") for one in weather_episodes()]


def test_a_store_is_trained_on_like_the_file_that_filled_it_and_its_rows_are_counted(base, tmp_path, pool) -> None:
    train(base, tmp_path / "file")
    train(base, tmp_path / "run", **from_store(pool))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "file")
    assert same(weights(tmp_path / "run" / "final"), weights(tmp_path / "file" / "final"))
    assert trained(pool) == {1: 6}
    assert num_leased(pool) == 0


def test_no_row_is_trained_more_often_than_it_may_be_over_successive_runs(base, tmp_path, pool) -> None:
    settings = from_store(pool, max_trained_count=1)
    for number, expected in enumerate(({0: 2, 1: 4}, {1: 6})):
        more = {"data": settings["data"] | {"max_samples": 4}, "train": {"max_steps": 3}}
        train(base, tmp_path / f"run{number}", **more)
        assert trained(pool) == expected
    with pytest.raises(StoreError) as caught:
        train(base, tmp_path / "run3", **settings)
    said = "of 6 rows of the split 'train' none is free: 6 were trained 1 times or more (max_trained_count) (mend: "
    assert str(caught.value).startswith(f"{pool}: {said}")
    with pytest.raises(StoreError, match="others were trained within 3600 seconds"):
        train(base, tmp_path / "run4", **from_store(pool, retrained_interval_seconds=3600))
    train(base, tmp_path / "run5", **from_store(pool, max_trained_count=2))
    assert trained(pool) == {2: 6}


def test_rows_that_a_run_did_not_come_to_are_not_counted(base, tmp_path, pool) -> None:
    train(base, tmp_path / "run", **from_store(pool), train={"max_steps": 2})
    assert trained(pool) == {0: 2, 1: 4}
    assert num_leased(pool) == 0
    train(base, tmp_path / "run", **from_store(pool), train={"max_steps": 6}, resume="auto")
    assert trained(pool) == {1: 6}
    train(base, tmp_path / "long")
    assert metrics(tmp_path / "run", "loss")[:2] == metrics(tmp_path / "long", "loss")[:2]


def test_a_run_that_was_stopped_keeps_its_rows_and_goes_on_with_them(base, tmp_path, pool, monkeypatch) -> None:
    train(base, tmp_path / "peaceful")
    with monkeypatch.context() as patched:
        stopping_after(patched, 3, signal.SIGTERM)
        assert train(base, tmp_path / "run", **from_store(pool)).signal == signal.SIGTERM
    assert trained(pool) == {0: 6}
    with pytest.raises(
        StoreError, match=rf"none is free: 6 are held by others, such as .*:{tmp_path}/run#\w+ until 20"
    ):
        train(base, tmp_path / "other", **from_store(pool))
    with open_store(pool) as store:
        store.add(copies(1))  # more rows change nothing for a run that has claimed its own
    train(base, tmp_path / "run", **from_store(pool), resume="auto")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "peaceful")
    assert trained(pool) == {0: 6, 1: 6}


def test_resuming_a_finished_run_counts_nothing_twice(base, tmp_path, pool) -> None:
    for _ in range(2):
        result = train(base, tmp_path / "run", **from_store(pool), resume="auto")
        assert result.step == 6
        assert trained(pool) == {1: 6}


def test_a_run_whose_rows_were_taken_is_not_gone_on_with(base, tmp_path, pool, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        stopping_after(patched, 3, signal.SIGTERM)
        train(base, tmp_path / "run", **from_store(pool))
    steal(pool, limit=1)
    with pytest.raises(LeaseLost) as caught:
        train(base, tmp_path / "run", **from_store(pool), resume="auto", train={"save_total_limit": 7})
    assert "1 of its 6 rows were claimed by 'thief' (mend: nothing of the run in " in str(caught.value)
    assert "start anew in another output_dir" in str(caught.value)
    assert trained(pool) == {0: 6}
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]["save_total_limit"] != 7
    train(base, tmp_path / "other", **from_store(pool))  # what is left of the lost lease is free
    assert trained(pool) == {0: 1, 1: 5}


def test_a_run_whose_rows_are_taken_while_it_trains_stops_with_a_checkpoint(base, tmp_path, pool, monkeypatch) -> None:
    told = Reporter.step

    def tell(self: Reporter, number: int, *args: Any, **kwargs: Any) -> None:
        told(self, number, *args, **kwargs)
        if number == 3:
            steal(pool)
            (keeper,) = [thread for thread in threading.enumerate() if thread.name.startswith("lease of")]
            keeper.join(10)

    monkeypatch.setattr(Reporter, "step", tell)
    with pytest.raises(LeaseLost, match=r"6 of its 6 rows were claimed by 'thief' \(mend: nothing of the run"):
        train(base, tmp_path / "run", **from_store(pool, lease_seconds=1))
    assert len(metrics(tmp_path / "run")) == 3
    assert (tmp_path / "run" / "checkpoint-3").is_dir()
    assert trained(pool) == {0: 6}


def test_a_lease_is_renewed_while_a_run_is_alive(base, tmp_path, pool, monkeypatch) -> None:
    told = Reporter.step

    def leased_until() -> float:
        with open_store(pool) as store:
            return store.counts().leases[0].lease_until

    def tell(self: Reporter, number: int, *args: Any, **kwargs: Any) -> None:
        told(self, number, *args, **kwargs)
        if number == 1:
            before, deadline = leased_until(), time.monotonic() + 10
            while leased_until() == before:
                assert time.monotonic() < deadline
                time.sleep(0.01)

    monkeypatch.setattr(Reporter, "step", tell)
    train(base, tmp_path / "run", **from_store(pool, lease_seconds=1))


def test_a_run_that_fails_before_it_has_a_checkpoint_lets_its_rows_go(base, tmp_path, pool) -> None:
    settings = from_store(pool)
    with pytest.raises(UnderstudyError, match=r"pool.db:1: .* tokens"):
        train(base, tmp_path / "run", data=settings["data"] | {"max_length": 20})
    assert num_leased(pool) == 0
    assert train(base, tmp_path / "run", **settings).step == 6
    assert trained(pool) == {1: 6}


def end(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("again", ["overwrite", "resume"])
def test_a_run_that_begins_anew_lets_go_what_the_one_before_had_claimed(base, tmp_path, pool, again: str) -> None:
    """A run that was killed before its first checkpoint has measured steps, and nothing to go on from."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("understudy.api.stores.Note.release", lambda self: None)  # a kill lets nothing go
        patched.setattr(Reporter, "step", end)
        with pytest.raises(KeyboardInterrupt):
            train(base, tmp_path / "run", **from_store(pool))
    assert num_leased(pool) == 6
    settings = config(base, tmp_path / "run", **from_store(pool))
    settings["data"]["max_samples"] = 2  # so it wants other rows than it has
    if again == "resume":
        settings["resume"] = "auto"
    understudy.train(settings, overwrite=again == "overwrite")
    assert trained(pool) == {0: 4, 1: 2}
    assert num_leased(pool) == 0


def test_what_is_validated_on_is_settled_at_the_start_and_not_counted(base, tmp_path, pool, monkeypatch) -> None:
    with open_store(pool) as store:
        store.add(copies(1), split="validation")
    data = from_store(pool)["data"] | {"validation_store": {"path": str(pool)}}
    file = {"data": {"validation_path": str(WEATHER)}, "train": {"eval_steps": 2}}
    train(base, tmp_path / "file", **file)
    with monkeypatch.context() as patched:
        stopping_after(patched, 3, signal.SIGTERM)
        train(base, tmp_path / "run", data=data, train={"eval_steps": 2})
    with open_store(pool) as store:
        store.add(copies(2), split="validation")
    train(base, tmp_path / "run", data=data, train={"eval_steps": 2}, resume="auto")
    assert metrics(tmp_path / "run", "eval_loss") == metrics(tmp_path / "file", "eval_loss")
    with open_store(pool) as store:
        assert store.counts().splits["validation"].num_by_trained_count == {0: 12}


def test_a_file_may_be_trained_on_and_a_store_validated_on(base, tmp_path, pool) -> None:
    data = {"validation_store": {"path": str(pool), "split": "train"}}
    train(base, tmp_path / "run", data=data, train={"max_steps": 1})
    assert len(metrics(tmp_path / "run", "eval_loss")) == 2
    assert trained(pool) == {0: 6}
    with pytest.raises(StoreError, match="there is no row of the split 'held_out'; it has: train"):
        train(base, tmp_path / "other", data={"validation_store": {"path": str(pool), "split": "held_out"}})


def test_stores_and_files_are_mixed_and_each_store_is_claimed_apart(base, tmp_path, pool) -> None:
    sources = {
        "file": {"path": str(WEATHER)},
        "few": {"store": {"path": str(pool)}, "max_samples": 2},
        "rest": {"store": {"path": str(pool)}},
    }
    train(base, tmp_path / "run", data={"path": None, "sources": sources})
    assert trained(pool) == {1: 6}
    rows = json.loads((tmp_path / "run" / "provenance.json").read_text())["data"]["sources"]
    assert [(row["name"], row["num_episodes"]) for row in rows] == [("file", 6), ("few", 2), ("rest", 4)]


def test_policies_of_one_run_share_its_rows_which_are_counted_once(base, tmp_path, pool) -> None:
    policies = {"one": {"agents": ["planner"]}, "two": {"agents": ["planner"]}}
    train(base, tmp_path / "run", **from_store(pool, max_trained_count=1), policies=policies, train={"max_steps": 3})
    assert metrics(tmp_path / "run" / "one") == metrics(tmp_path / "run" / "two")
    assert trained(pool) == {1: 6}


def test_a_tiny_model_is_made_of_the_claimed_rows(tmp_path, pool) -> None:
    settings = config(tmp_path, tmp_path / "run", **from_store(pool), train={"max_steps": 1})
    tiny = {"tiny": "qwen3", "hidden_size": 32, "num_layers": 1, "vocab_size": 400}
    assert understudy.train(settings | {"model": tiny}).step == 1


def test_a_dry_run_claims_nothing(base, tmp_path, pool) -> None:
    dry = understudy.dry_run(config(base, tmp_path / "run", **from_store(pool)))
    assert dry.data.reports[0].num_episodes == 6
    with open_store(pool) as store:
        assert store.counts().leases == ()
        store.claim("a")
    with pytest.raises(StoreError, match="none is free: 6 are held by others, such as a until"):
        understudy.dry_run(config(base, tmp_path / "run", **from_store(pool)))


def test_a_run_goes_on_where_its_store_has_moved_to_and_with_no_other_store(base, tmp_path, pool) -> None:
    train(base, tmp_path / "run", **from_store(pool))
    moved = pool.rename(tmp_path / "moved.db")
    more = {"train": {"max_steps": 8}, "resume": "auto"}
    with pytest.raises(StoreError, match=r"pool.db: there is no store"):
        train(base, tmp_path / "run", **from_store(pool), **more)
    with open_store(pool, create=True) as store:
        store.add(weather_episodes())
    with pytest.raises(StoreError, match=r"pool.db: the store knows of no rows that the run in .*/run has claimed"):
        train(base, tmp_path / "run", **from_store(pool), **more)
    with pytest.raises(CheckpointError, match=r"data.store.split was 'train' and is 'other'"):
        train(base, tmp_path / "run", **from_store(moved, split="other"), **more)
    assert train(base, tmp_path / "run", **from_store(moved, max_trained_count=1), **more).step == 8
    assert trained(moved) == {1: 6}


def test_a_run_that_began_with_a_file_does_not_go_on_with_a_store(base, tmp_path, pool) -> None:
    train(base, tmp_path / "run", train={"max_steps": 2})
    with pytest.raises(
        StoreError, match=r"the store knows of no rows that the run in .*/run has claimed .mend: go on with"
    ):
        train(base, tmp_path / "run", **from_store(pool), resume="auto")
    assert num_leased(pool) == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"path": "x", "store": {"path": "pool.db"}}, "give one of path .files., store and sources"),
        ({"store": {"path": "pool.db"}, "format": "messages"}, "format says how files are read"),
        ({"store": {"path": "pool.db"}, "validation_split": 0.1}, "validation_split would hold out rows of a store"),
        ({"store": {"path": "pool.db"}, "temperature": 2}, "temperature is for several sources"),
        ({"store": {"path": "pool.db", "max_trained_count": 0}}, "max_trained_count: .*greater than or equal to 1"),
        ({"store": {"path": "pool.db", "lease_second": 5}}, "unknown key. Did you mean 'data.store.lease_seconds'"),
        ({"sources": {"a": {}}}, r"data.sources.a: give either path \(files\) or store"),
        ({"sources": {"a": {"path": "x", "store": {"path": "pool.db"}}}}, r"give either path \(files\) or store"),
        ({"sources": {"a": {"store": {"path": "pool.db"}, "format": "messages"}}}, "format says how files are read"),
        (
            {"path": "x", "validation_path": "y", "validation_store": {"path": "pool.db"}},
            "give one of validation_store, validation_path and validation_split",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config_from_dict(TrainConfig, {"output_dir": "run", "model": {"path": "m"}, "data": data})


def test_a_split_is_not_both_trained_and_validated_on(base, tmp_path, pool, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = from_store(pool)["data"] | {"validation_store": {"path": "./pool.db", "split": "train"}}
    with pytest.raises(ConfigError, match=r"data.validation_store: the split 'train' of ./pool.db would be trained on"):
        train(base, tmp_path / "run", data=data)


def test_a_store_takes_no_stage_out_of_a_run(pool) -> None:
    stages = {"collect": {"environment": {"name": "math"}, "policy": {"name": "expert"}}}
    stages["train"] = {"model": {"tiny": "qwen3"}, "data": {"store": {"path": str(pool)}}}
    with pytest.raises(ConfigError, match=r"train.data.store: .*the stages before, whose episodes are trained on"):
        config_from_dict(RunConfig, {"output_dir": "run"} | stages)


def test_data_that_is_given_twice_is_refused(base, tmp_path, pool) -> None:
    settings = config(base, tmp_path / "run", **from_store(pool))
    with pytest.raises(ConfigError, match="data is given twice"):
        understudy.train(settings, train_dataset=[])
    with pytest.raises(ConfigError, match="a store holds episodes, and convert_record_to_data_func makes them"):
        understudy.train(settings, convert_record_to_data_func=lambda record, args: [])
    with pytest.raises(StoreError, match="there is no store of the kind 'mongodb'"):
        train(base, tmp_path / "run", **from_store("mongodb://host/db"))  # type: ignore[arg-type]


def test_a_stage_of_a_run_trains_from_a_store_and_is_done_once(base, tmp_path, pool, capsys) -> None:
    stage = config(base, tmp_path / "unused", **from_store(pool), train={"max_steps": 3})
    del stage["output_dir"]
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"output_dir": str(tmp_path / "run"), "train": stage}))
    assert main(["run", str(file)]) == 0
    assert trained(pool) == {1: 6}
    assert main(["run", str(file)]) == 0
    assert "done before" in capsys.readouterr().err
    assert trained(pool) == {1: 6}
    assert main(["run", str(file), "--from", "train"]) == 0
    assert trained(pool) == {2: 6}


def start(file: Path, *options: str) -> subprocess.Popen[bytes]:
    code = "import sys; from understudy.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "train", str(file), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_run_that_is_killed_goes_on_with_the_very_rows_and_loses_none(base, tmp_path, pool) -> None:
    settings = {"max_steps": 300, "save_steps": 2, "lr_scheduler_type": "constant"}
    file, run = tmp_path / "run.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(config(base, run, **from_store(pool, max_trained_count=1), train=settings)))
    process = start(file)
    wait_for(lambda: any(run.glob("checkpoint-*")) and len(metrics(run)) > 4, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert trained(pool) == {0: 6}
    assert num_leased(pool) == 6
    num_steps = len(metrics(run)) + 3
    understudy.train(file, overrides=["resume=auto", f"train.max_steps={num_steps}"])
    train(base, tmp_path / "peaceful", train=settings | {"max_steps": num_steps})
    assert metrics(run) == metrics(tmp_path / "peaceful")
    assert same(weights(run / "final"), weights(tmp_path / "peaceful" / "final"))
    assert trained(pool) == {1: 6}

"""One run, several policies: each learns what its agents did, in a folder of its own, and they play together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import understudy
from tests.training import same, weights
from understudy.api import dry_runs
from understudy.api.pipeline import run
from understudy.cli.main import main
from understudy.collect import CollectConfig, collect
from understudy.config import config_from_dict, dump_config, load_config
from understudy.errors import ConfigError, UnderstudyError
from understudy.formats import read_episodes
from understudy.train.config import TrainConfig

TINY = {"tiny": "qwen3", "hidden_size": 16, "num_layers": 1, "vocab_size": 400}
TEAM = {"name": "team", "arguments": {"level": 1}}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an expert planner and an expert solver did, twelve times."""
    folder = tmp_path_factory.mktemp("team") / "rows"
    settings = {"environment": TEAM, "policy": {"name": "expert"}, "num_episodes": 12, "output_dir": str(folder)}
    return collect(config_from_dict(CollectConfig, settings)).path


def config(rows: Path, folder: Path, **sections: Any) -> dict[str, Any]:
    """Return a small run of a planner and a solver."""
    return {
        "output_dir": str(folder),
        "model": TINY,
        "data": {"path": str(rows), "validation_split": 0.2},
        "train": {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "save_steps": 2},
        "policies": {"planner": {}, "solver": {"train": {"max_steps": 3}}},
    } | sections


@pytest.fixture(scope="module")
def trained(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    understudy.train(config(rows, folder))
    return folder


def test_each_policy_learns_its_agents_trajectories_as_a_run_of_its_own_would(
    rows: Path, trained: Path, tmp_path: Path
) -> None:
    for agent, num_steps in (("planner", 4), ("solver", 3)):
        (source,) = json.loads((trained / agent / "provenance.json").read_text())["data"]["sources"]
        assert (source["num_trajectories"], source["num_unselected"]) == (12, 12)
        alone = config(rows, tmp_path / agent)
        alone |= {"policies": None, "data": alone["data"] | {"agents": [agent]}}
        result = understudy.train(alone, overrides=[f"train.max_steps={num_steps}"])
        assert result.final is not None
        assert same(weights(result.final), weights(trained / agent / "final"))


def test_the_result_has_that_of_each(rows: Path, tmp_path: Path) -> None:
    result = understudy.train(config(rows, tmp_path / "run"))
    assert (result.final, result.step, result.num_steps) == (None, 7, 7)
    assert {name: one.final for name, one in result.policies.items()} == {
        name: tmp_path / "run" / name / "final" for name in ("planner", "solver")
    }
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert provenance["status"] == "finished"


def test_policies_differ_in_what_is_given_for_them_alone(base: Path, tmp_path: Path) -> None:
    policies = {
        "planner": {"agents": ["a", "b"], "lora": None, "train": {"warmup_ratio": 0.2}},
        "solver": {"policies": ["p"], "model": {"tiny": "llama"}, "objective": {"name": "world_model"}},
    }
    given = {"output_dir": "out", "model": {"path": str(base)}, "lora": {"lora_r": 2}, "policies": policies}
    made = config_from_dict(TrainConfig, given | {"train": {"learning_rate": 1e-3}})
    planner, solver = made.by_policy().values()
    assert (planner.output_dir, planner.data.agents, planner.lora) == ("out/planner", ("a", "b"), None)
    assert (planner.train.learning_rate, planner.train.warmup_ratio, planner.model.path) == (1e-3, 0.2, str(base))
    assert (solver.output_dir, solver.data.agents, solver.data.policies) == ("out/solver", None, ("p",))
    assert (solver.model.tiny, solver.objective.name) == ("llama", "world_model")
    assert solver.lora is not None
    (tmp_path / "config.yaml").write_text(dump_config(made))
    assert load_config(TrainConfig, tmp_path / "config.yaml").by_policy() == made.by_policy()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("policies={}", "policies is empty"),
        ("policies={planer: {}}", r"no trajectory of 'data' is of 'planer'. Did you mean 'planner'"),
        ("policies={final: {}}", r"'final' cannot be the name of a policy's folder; name its agents in final.agents"),
        ("policies={../x: {}}", r"'../x' cannot be the name"),
        ("policies.planner.train.learning_rat=1", r"Did you mean 'policies.planner.train.learning_rate'"),
        ("policies.planner.train={warmup_steps: 2, warmup_ratio: 0.1}", r"either warmup_ratio or warmup_steps"),
        ("data.agents=[planner]", r"who is trained is said by policies; leave out agents and policies of data"),
        (
            "evaluation={environment: {name: team}}",
            r"evaluation.policies.solver: the model learns what planner did; say who acts for solver",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(
    rows: Path, tmp_path: Path, override: str, said: str
) -> None:
    with pytest.raises(UnderstudyError, match=said):
        understudy.train(config(rows, tmp_path / "run"), overrides=[override])
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_each_plays_with_the_given_partners_while_it_is_trained(rows: Path, tmp_path: Path) -> None:
    expert = {"name": "expert"}
    evaluation = {
        "environment": TEAM, "num_tasks": 2, "arguments": {"max_new_tokens": 4}, "max_turns": 2,
        "policies": {"planner": expert, "solver": expert},
    }  # fmt: skip
    understudy.train(config(rows, tmp_path / "run", evaluation=evaluation))
    for agent, other in (("planner", "solver"), ("solver", "planner")):
        (*_, last) = sorted((tmp_path / "run" / agent / "rollouts").iterdir())
        episodes = list(read_episodes(last))
        assert {t.agent: t.policy for e in episodes for t in e.trajectories} == {agent: "local", other: "expert"}


def test_a_dry_run_tells_of_each(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = dry_runs(config(rows, tmp_path / "run"))
    assert {name: dry.plans.num_steps for name, dry in found.items()} == {"planner": 4, "solver": 3}
    with pytest.raises(ConfigError, match="several policies; dry_runs"):
        understudy.dry_run(config(rows, tmp_path / "run"))
    (tmp_path / "run.yaml").write_text(json.dumps(config(rows, tmp_path / "run")))
    assert main(["train", str(tmp_path / "run.yaml"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "policy planner\n" in shown
    assert "policy solver\n" in shown


def test_a_finished_run_is_gone_on_with_and_made_longer(rows: Path, tmp_path: Path) -> None:
    settings = config(rows, tmp_path / "run")
    understudy.train(settings, overrides=["train.max_steps=2"])
    with pytest.raises(ConfigError, match="holds a finished run"):
        understudy.train(settings)
    longer = understudy.train(settings | {"resume": "auto"})
    assert (longer.policies["planner"].step, longer.policies["solver"].step) == (4, 3)
    rows_of = [len((tmp_path / "run" / name / "metrics.jsonl").read_text().splitlines()) for name in longer.policies]
    assert min(rows_of) > 3
    with pytest.raises(ConfigError, match="holds a run of the policies planner, solver, not of one model for all"):
        understudy.train(settings | {"resume": "auto", "policies": None})


def test_any_dataset_is_gone_through_once_for_each(rows: Path, tmp_path: Path) -> None:
    settings = config(rows, tmp_path / "run") | {"data": {}}
    result = understudy.train(settings, train_dataset=iter(read_episodes(rows)))
    assert all(one.final is not None for one in result.policies.values())


def test_a_run_trains_them_and_lets_them_play_together_against_what_they_were(tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "collect": {"environment": TEAM, "policy": {"name": "expert"}, "num_episodes": 16},
        "curate": {"only_success": True, "validation_split": 0.2},
        "train": {
            "model": TINY,
            "train": {"max_steps": 2, "learning_rate": 1e-3},
            "policies": {"planner": {}, "solver": {}},
        },
        "evaluate": {"num_tasks": 2, "max_turns": 2, "policies": {"solver": {"arguments": {"max_new_tokens": 8}}}},
    }
    folder = tmp_path / "run"
    result = run({"output_dir": str(folder), **sections})
    evaluated = result.outcome("evaluate")
    assert evaluated is not None
    train = folder / "train"
    assert evaluated.result.label == ", ".join(f"{who}: local {train}/{who}/final" for who in ("solver", "planner"))
    assert evaluated.result.baseline_label == evaluated.result.label.replace("final", "base")
    assert evaluated.result.metrics.agents.keys() == {"planner", "solver"}
    measured = [loss.label for loss in evaluated.result.losses]
    finals = [f"{train}/{who}/final ({who})" for who in ("solver", "planner")]
    assert measured == finals + [name.replace("final", "base") for name in finals]
    assert "held-out loss of planner" in evaluated.summary
    again = run({"output_dir": str(folder), **sections})
    assert all(outcome.result is None for outcome in again.stages)

"""A run goes from an environment to proof, does nothing twice, and says what contradicts itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import understudy
from understudy.api.pipeline import STAGES, RunResult, plan, read_run_config, run
from understudy.config import read_document
from understudy.errors import ConfigError, FormatError, UnderstudyError
from understudy.formats import read_episodes

SMALL: dict[str, Any] = {
    "collect": {"environment": {"name": "math"}, "policy": {"name": "expert"}, "num_episodes": 16},
    "curate": {"only_success": True, "validation_split": 0.2},
    "train": {
        "model": {"tiny": "qwen3", "hidden_size": 32, "num_layers": 1, "vocab_size": 400},
        "train": {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "save_steps": 2},
    },
    "evaluate": {"num_tasks": 3, "max_turns": 2, "policy": {"arguments": {"max_new_tokens": 8}}},
}
"""A run of a few seconds."""

UNTOUCHED = (".lock", "config.yaml", "provenance.json", "run.log")
"""Files that a start writes where everything is done: what ran when."""


def small(folder: Path, **sections: Any) -> dict[str, Any]:
    """Return the small config with other keys in some sections; None leaves a stage out."""
    out: dict[str, Any] = {"output_dir": str(folder)}
    for name, section in SMALL.items():
        given = sections.get(name, {})
        out[name] = None if given is None else section | given
    return out | {name: value for name, value in sections.items() if name not in SMALL}


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every file of a run's stages with its time and content."""
    found = (file for file in folder.rglob("*") if file.is_file() and file.parent != folder)
    return {str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes()) for file in found}


def results(result: RunResult) -> dict[str, bool]:
    """Return for each stage whether it was run now."""
    return {outcome.stage.name: outcome.result is not None for outcome in result.stages}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A finished run. Copy its folder before you change it."""
    return understudy.run(small(tmp_path_factory.mktemp("finished") / "run"))


@pytest.fixture
def copy(finished: RunResult, tmp_path: Path) -> Path:
    """The finished run in another place."""
    return Path(shutil.copytree(finished.folder, tmp_path / "copy"))


def test_a_run_goes_from_an_environment_to_a_comparison_with_the_untrained_model(finished: RunResult) -> None:
    folder = finished.folder
    assert results(finished) == dict.fromkeys(STAGES, True)
    collected = list(read_episodes(str(folder / "collect")))
    chosen = list(read_episodes(str(folder / "curate" / "train.jsonl")))
    held_out = list(read_episodes(str(folder / "curate" / "validation.jsonl")))
    assert len(collected) == 16
    assert {e.id for e in chosen} | {e.id for e in held_out} == {e.id for e in collected}
    assert (folder / "train" / "loss.png").stat().st_size > 0
    report = json.loads((folder / "evaluate" / "report.json").read_text())
    assert (folder / "evaluate" / "report.html").stat().st_size > 0
    assert (
        report["policy"]["num_tasks"]
        == report["baseline"]["num_tasks"]
        == report["comparison"]["success"]["num_tasks"]
        == 3
    )

    played = {side: list(read_episodes(str(folder / "evaluate" / side))) for side in ("episodes", "baseline")}
    assert [e.task for e in played["episodes"]] == [e.task for e in played["baseline"]]
    assert {e.split for e in played["episodes"]} == {"test"}
    assert read_document(folder / "evaluate" / "config.yaml").value["baseline"]["arguments"] == {
        "max_new_tokens": 8,
        "model": str(folder / "train" / "base"),
    }


def test_what_is_done_is_not_done_again(finished: RunResult) -> None:
    before = files(finished.folder)
    again = understudy.run(small(finished.folder))
    assert results(again) == dict.fromkeys(STAGES, False)
    assert files(finished.folder) == before
    assert [outcome.summary for outcome in again.stages] == [outcome.summary for outcome in finished.stages]


def test_the_runs_own_config_makes_the_same_run_elsewhere(finished: RunResult, tmp_path: Path) -> None:
    path = finished.folder / "config.yaml"
    assert read_run_config(path) == read_run_config(small(finished.folder))
    elsewhere = read_run_config(path, [f"output_dir={tmp_path}"])
    assert elsewhere == read_run_config(small(tmp_path))


def test_a_run_that_was_moved_is_still_done(copy: Path) -> None:
    assert [one.state for one in plan(read_run_config(copy / "config.yaml", [f"output_dir={copy}"]))] == ["done"] * 4


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"collect": {"environment": {"name": "grid"}}}, r"collect.environment.name was 'math' and is 'grid'"),
        ({"curate": {"validation_split": 0.4}}, r"curate.validation_split was 0.2 and is 0.4"),
        ({"train": {"objective": {"bc_weight": 2.0}}}, r"train.objective.bc_weight was None and is 2.0"),
        ({"evaluate": {"num_tasks": 4}}, r"evaluate.num_tasks was 3 and is 4"),
        ({"seed": 1}, r"collect.seed was 0 and is 1"),
    ],
)
def test_another_setting_of_a_stage_that_is_done_is_refused_by_its_name(
    copy: Path, sections: dict[str, Any], key: str
) -> None:
    before = files(copy)
    with pytest.raises(ConfigError, match=rf"{key}.*The stage is done: set it back, or --from \w+ does it anew"):
        run(small(copy, **sections))
    assert files(copy) == before


def test_starting_from_a_stage_does_it_anew_with_what_follows_and_leaves_what_is_before(copy: Path) -> None:
    before = files(copy)
    changed = small(copy, train=SMALL["train"] | {"objective": {"bc_weight": 2.0}})
    again = run(changed, start_from="train")
    assert results(again) == {"collect": False, "curate": False, "train": True, "evaluate": True}
    after = files(copy)
    kept = [name for name in before if name.startswith(("collect", "curate", "stages/collect", "stages/curate"))]
    assert len(kept) > 6
    assert [after[name] for name in kept] == [before[name] for name in kept]
    assert after["train/final/model.safetensors"][0] > before["train/final/model.safetensors"][0]
    assert results(run(changed)) == dict.fromkeys(STAGES, False)


def test_a_collection_grows_where_the_stages_after_it_are_named(copy: Path) -> None:
    more = small(copy, collect=SMALL["collect"] | {"num_episodes": 20}, train=None, evaluate=None)
    with pytest.raises(
        ConfigError, match=r"num_episodes was 16 and is 20.*but curate has read what was there; --from curate"
    ):
        run(more)
    again = run(more, start_from="curate")
    collected = again.outcome("collect")
    assert collected is not None
    assert collected.result.num_played == 4
    assert "20 episodes" in "".join(outcome.summary for outcome in again.stages)


def test_a_file_that_was_changed_since_it_was_read_is_named(copy: Path) -> None:
    chosen = copy / "curate" / "train.jsonl"
    chosen.write_bytes(chosen.read_bytes().partition(b"\n")[2])
    with pytest.raises(ConfigError, match=r"what the train stage read has changed: curate/train.jsonl; --from train"):
        run(small(copy))


def test_a_result_that_has_gone_is_named(copy: Path) -> None:
    shutil.rmtree(copy / "train" / "final")
    with pytest.raises(ConfigError, match=r"the train stage is done, but .*/train/final has gone; --from train"):
        run(small(copy))


def test_overwriting_starts_from_nothing(copy: Path) -> None:
    stray = copy / "collect" / "stray.jsonl"
    stray.write_text("")
    result = run(small(copy, train=None, evaluate=None, seed=5), overwrite=True)
    assert results(result) == {"collect": True, "curate": True}
    assert sorted(entry.name for entry in copy.iterdir() if entry.is_dir()) == ["collect", "curate", "stages"]
    assert not stray.exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["collect.output_dir=other"],
            r"collect.output_dir: follows from output_dir and is '\S+/run/collect', got 'other'",
        ),
        (["curate.path=rows.jsonl"], r"curate.path: follows from the collect stage"),
        (["train.data.path=rows.jsonl"], r"train.data.path: follows from the curate stage"),
        (["train.data.sources={a: {path: b}}"], r"train.data.sources: follows from the stages before"),
        (["train.data.validation_path=v.jsonl"], r"train.data.validation_path: follows from curate.validation_split"),
        (["train.data.validation_split=0.1"], r"train.data: give either validation_path or validation_split"),
        (["train.resume=never"], r"train.resume: follows from"),
        (["evaluate.environment={name: grid}"], r"evaluate.environment: follows from collect.environment"),
        (["evaluate.policy.name=endpoint"], r"evaluate.policy.name: follows from the train stage and is 'local'"),
        (["evaluate.policy.arguments.model=m"], r"evaluate.policy.arguments.model: follows from the train stage"),
    ],
)
def test_a_value_that_contradicts_what_follows_is_refused(tmp_path: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run(small(tmp_path / "run"), overrides=overrides)
    assert not (tmp_path / "run").exists()


def test_a_value_that_only_says_what_follows_anyway_is_taken(tmp_path: Path) -> None:
    given = [f"curate.path={tmp_path}/./collect", "evaluate.environment={name: math, arguments: {}}"]
    assert read_run_config(small(tmp_path), given).own() == read_run_config(small(tmp_path)).own()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("colect.num_episodes=3", r"unknown key. Did you mean 'collect'"),
        ("collect.num_episode=3", r"collect.num_episode: unknown key. Did you mean 'collect.num_episodes'"),
        ("curate.only_sucess=true", r"Did you mean 'curate.only_success'"),
        ("train.train.learning_rat=1", r"Did you mean 'train.train.learning_rate'"),
        ("evaluate.num_task=3", r"Did you mean 'evaluate.num_tasks'"),
        ("collect.environment.name=maths", r"unknown environment 'maths'. Did you mean 'math'"),
        ("collect.environment.arguments.levl=2", r"math has no argument 'levl'. Known: kinds"),
        ("collect.policy.name=exprt", r"unknown policy 'exprt'. Did you mean 'expert'"),
        ("collect.num_episodes=1000000", r"num_episodes is 1,000,000, but the train split has"),
        ("train.model.tiny=qwen33", r"unknown architecture 'qwen33'. Did you mean 'qwen3'"),
        ("train.objective.name=cloning", r"unknown objective 'cloning'"),
        ("train.model={path: no/such/model}", r"no/such/model"),
        ("train.train.report_to=wanb", r"wanb"),
        ("evaluate.policy.arguments.max_new_token=3", r"local has no argument 'max_new_token'"),
        ("evaluate.num_tasks=1000000", r"1,000,000"),
        ("curate.model=no/such/model", r"max_tokens and model go together"),
    ],
)
def test_a_mistake_in_any_section_is_found_before_anything_is_made(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(UnderstudyError, match=said):
        run(small(tmp_path / "run"), overrides=[override])
    assert not (tmp_path / "run").exists()


def test_all_mistakes_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_run_config(small(tmp_path), ["collect.output_dir=x", "evaluate.num_task=1", "train.trian={}"])
    assert "3 problems" in str(caught.value)


def test_a_run_needs_a_stage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is nothing to do: give at least one of the sections collect, curate"):
        run({"output_dir": str(tmp_path / "run")})


def test_stages_can_be_left_out(finished: RunResult, tmp_path: Path) -> None:
    collected = run(small(tmp_path / "data", train=None, evaluate=None))
    assert results(collected) == {"collect": True, "curate": True}
    rows = str(tmp_path / "data" / "curate" / "train.jsonl")
    trained = run(
        small(
            tmp_path / "model",
            collect=None,
            curate=None,
            train={"data": {"path": rows}},
            evaluate={"environment": {"name": "math"}, "num_tasks": 2},
        )
    )
    assert results(trained) == {"train": True, "evaluate": True}
    assert {e.environment for e in read_episodes(str(tmp_path / "model" / "evaluate" / "baseline"))} == {"math"}


def test_a_model_that_was_there_and_an_adapter_for_it_are_compared_with_that_model(base: Path, tmp_path: Path) -> None:
    sections = {
        "collect": SMALL["collect"] | {"output_format": "jsonl.zst"},
        "curate": {"output_format": "parquet"},
        "train": SMALL["train"] | {"model": {"path": str(base)}, "lora": {"lora_r": 2}},
    }
    result = run(small(tmp_path / "run", **sections))
    evaluated = result.outcome("evaluate")
    assert evaluated is not None
    assert (tmp_path / "run" / "train" / "final" / "adapter_config.json").exists()
    assert evaluated.result.baseline_label == f"local {base}"
    assert evaluated.result.label == f"local {tmp_path}/run/train/final"


def test_without_an_earlier_stage_its_result_has_to_be_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"curate.data_path: is required"):
        run(small(tmp_path / "run", collect=None))
    with pytest.raises(ConfigError, match=r"there is no data: set data.path"):
        run(small(tmp_path / "run", collect=None, curate=None, evaluate=None))
    with pytest.raises(FormatError, match=r"no such file"):
        run(small(tmp_path / "run", collect=None, curate={"path": "none.jsonl"}, train=None, evaluate=None))
    assert not (tmp_path / "run").exists()


def test_what_a_single_command_has_done_in_the_runs_folder_is_taken_up(tmp_path: Path) -> None:
    config = read_run_config(small(tmp_path / "run", train=None, evaluate=None))
    assert config.collect is not None
    understudy.collect.collect(config.collect)
    result = run(config).outcome("collect")
    assert result is not None
    assert result.result.num_played == 0


def test_a_stages_own_config_makes_it_alone(copy: Path) -> None:
    before = files(copy)["train/final/model.safetensors"]
    again = understudy.train(copy / "train" / "config.yaml", overrides=["output_dir=" + str(copy / "train")])
    assert (again.step, again.num_steps) == (4, 4)
    assert files(copy)["train/final/model.safetensors"][1] == before[1]


def test_the_folder_of_another_command_is_left_alone(tmp_path: Path) -> None:
    config = read_run_config(small(tmp_path / "run"))
    assert config.collect is not None
    understudy.collect.collect(config.collect)
    before = (tmp_path / "run" / "collect" / "config.yaml").read_text()
    with pytest.raises(ConfigError, match="holds the run of another command; name another output_dir"):
        run(small(tmp_path / "run" / "collect"))
    assert (tmp_path / "run" / "collect" / "config.yaml").read_text() == before


def test_a_launcher_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="a run is one process, but a launcher has started several"):
        run(small(tmp_path / "run"))


def test_a_stage_that_the_run_has_not_cannot_be_started_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot start from 'train': this run has the stages collect, curate"):
        run(small(tmp_path / "run", train=None, evaluate=None), start_from="train")


def test_the_seed_is_every_stages_that_has_none_of_its_own(tmp_path: Path) -> None:
    config = read_run_config(small(tmp_path, seed=7, curate={"seed": 3}))
    assert config.collect is not None
    assert config.curate is not None
    assert config.train is not None
    assert config.evaluate is not None
    seeds = (config.collect.seed, config.curate.seed, config.train.train.seed, config.evaluate.seed)
    assert seeds == (7, 3, 7, 7)


def test_a_model_is_played_as_it_was_trained(tmp_path: Path) -> None:
    train = SMALL["train"] | {"rendering": {"null_content": "null"}, "train": {"device": "cpu"}}
    config = read_run_config(small(tmp_path, train=train))
    assert config.evaluate is not None
    assert config.evaluate.policy is not None
    arguments = config.evaluate.policy.arguments
    assert arguments["profile"] == {"null_content": "null"}
    assert arguments["device"] == "cpu"
    assert config.evaluate.baseline.arguments == arguments | {"model": str(tmp_path / "train" / "base")}
    assert config.evaluate.loss is not None
    assert config.evaluate.loss.rendering.null_content == "null"


def test_playing_within_training_is_in_the_environment_that_was_collected_from(tmp_path: Path) -> None:
    train = SMALL["train"] | {"evaluation": {"num_tasks": 2}}
    config = read_run_config(small(tmp_path, train=train, collect=SMALL["collect"] | {"max_turns": 7}))
    assert config.train is not None
    assert config.train.evaluation is not None
    assert config.train.evaluation.environment.name == "math"
    assert config.train.evaluation.max_turns == 7

"""A loop goes on from itself: with its own model, its own data and its own best, does nothing twice, and says so."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import understudy
from understudy.api.pipeline import LoopResult, RunConfig, plan_loop, read_run_config, run
from understudy.api.pipeline.history import read_history
from understudy.api.pipeline.iterations import held_out_config, iteration_config
from understudy.config import read_document
from understudy.errors import ConfigError, UnderstudyError
from understudy.formats import read_episodes
from understudy.models.export import find_model
from understudy.types import Episode

STAND_IN = f"{Path(__file__).with_name('standin.py')}:StandIn"

SMALL: dict[str, Any] = {
    "iterations": 3,
    "loop": {"policy": {"name": STAND_IN}},
    "collect": {
        "environment": {"name": "math", "arguments": {"num_tasks": {"train": 60}}},
        "policy": {"name": "mixture", "arguments": {"chance": 0.5, "per": "episode"}},
        "num_episodes": 24,
    },
    "curate": {"only_success": True, "validation_split": 0.2, "replay_buffer_size": 25},
    "train": {
        "model": {"tiny": "qwen3", "hidden_size": 16, "num_layers": 1, "vocab_size": 300},
        "train": {"max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-3},
    },
    "evaluate": {"num_tasks": 2, "max_turns": 1, "policy": {"arguments": {"max_new_tokens": 4}}},
}
"""Three iterations of a few seconds, in which a stand-in plays for the models."""


def small(folder: Path, **sections: Any) -> dict[str, Any]:
    """Return the small config with other keys in some sections; None leaves one out."""
    out: dict[str, Any] = {"output_dir": str(folder)}
    for name in SMALL | sections:
        before, given = SMALL.get(name), sections.get(name, {})
        out[name] = before | given if isinstance(before, dict) and given is not None else given or before
        if name in sections and given is None:
            out[name] = None
    return out


def ids(path: Path) -> list[str]:
    return [episode.id for episode in read_episodes(str(path))]


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every file of the iterations with its time and content."""
    found = (file for file in folder.glob("*_*/**/*") if file.is_file())
    return {str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes()) for file in found}


def went(config: dict[str, Any], **options: Any) -> LoopResult:
    result = run(config, **options)
    assert isinstance(result, LoopResult)
    return result


def states(result: LoopResult) -> list[list[str]]:
    """Return the stages of each iteration that were run now."""
    return [[outcome.stage.name for outcome in one.stages if outcome.result is not None] for one in result.iterations]


ALL = ["collect", "curate", "train", "evaluate"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> LoopResult:
    """A finished loop. Copy its folder before you change it."""
    return went(small(tmp_path_factory.mktemp("finished") / "run"))


@pytest.fixture
def copy(finished: LoopResult, tmp_path: Path) -> Path:
    """The finished loop in another place."""
    return Path(shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True))


@pytest.fixture
def in_place(finished: LoopResult) -> Iterator[Path]:
    """The finished loop in its own place, to be changed: it is put back afterwards."""
    aside = finished.folder.with_name("aside")
    shutil.copytree(finished.folder, aside, symlinks=True)
    yield finished.folder
    shutil.rmtree(finished.folder)
    aside.rename(finished.folder)


def test_every_iteration_plays_the_model_before_it_on_tasks_of_its_own(finished: LoopResult) -> None:
    assert finished.is_complete
    assert states(finished) == [ALL, ALL, ALL]
    played: list[Episode] = []
    for number, name in ((1, "mixture"), (2, "stand-in"), (3, "stand-in")):
        episodes = list(read_episodes(str(finished.folder / f"iteration_0{number}" / "collect")))
        assert {trajectory.policy for episode in episodes for trajectory in episode.trajectories} == {name}
        played += episodes
    assert [episode.metadata["task_index"] for episode in played] == list(range(72))
    assert [episode.seed for episode in played] == list(range(72))
    assert [episode.task for episode in played[:12]] == [episode.task for episode in played[60:]]
    configs = [read_document(finished.folder / f"iteration_0{n}" / "collect" / "config.yaml").value for n in (2, 3)]
    assert [config["policy"]["arguments"]["model"] for config in configs] == [
        str(finished.folder / f"iteration_0{n}" / "train" / "final") for n in (1, 2)
    ]


def test_what_passed_goes_into_a_buffer_from_which_the_oldest_goes_out(finished: LoopResult) -> None:
    kept: list[str] = []
    for number in (1, 2, 3):
        folder = finished.folder / f"iteration_0{number}"
        succeeded = [e.id for e in read_episodes(str(folder / "collect")) if e.success]
        sides = [ids(folder / "curate" / f"{side}.jsonl") for side in ("train", "validation")]
        known = kept + succeeded
        assert set(sides[0]) | set(sides[1]) <= set(known)
        in_train = [id for id in known if id in sides[0]]
        assert sides[0] == in_train
        stats = json.loads((folder / "curate" / "curation_stats.json").read_text())
        (rule,) = [rule for rule in stats["rules"] if rule["rule"] == "replay_buffer_size"]
        assert len(known) - sum(map(len, sides)) == rule["num_before"] - rule["num_kept"]
        assert sum(map(len, sides)) <= 25
        kept = sides[0] + sides[1]
    assert rule["reasons"]["older than those that fit"] > 0


def test_training_goes_on_from_the_last_model(finished: LoopResult) -> None:
    for number in (2, 3):
        folder = finished.folder / f"iteration_0{number}"
        before = finished.folder / f"iteration_0{number - 1}" / "train" / "final"
        assert read_document(folder / "train" / "config.yaml").value["model"]["path"] == str(before)
        assert json.loads((folder / "train" / "provenance.json").read_text())["data"]["base_model"] == str(before)
        assert not (folder / "train" / "base").exists()


def test_training_can_begin_with_the_first_model_every_time(tmp_path: Path) -> None:
    result = went(small(tmp_path / "run", iterations=2, loop={"train_from": "first"}, evaluate=None))
    model = read_document(result.folder / "iteration_02" / "train" / "config.yaml").value["model"]["path"]
    assert model == str(tmp_path / "run" / "iteration_01" / "train" / "base")


def test_the_best_is_chosen_on_validation_tasks_and_shown_on_test_tasks(finished: LoopResult) -> None:
    splits = {
        place: {episode.split for episode in read_episodes(str(finished.folder / place))}
        for place in ("iteration_01/evaluate/episodes", "iteration_01/evaluate/baseline", "held_out/evaluate/episodes")
    }
    assert list(splits.values()) == [{"validation"}, {"validation"}, {"test"}]
    assert finished.history is not None
    best = finished.history.best
    assert find_model(finished.folder).resolve() == (finished.folder / f"iteration_0{best}" / "train" / "final")
    held_out = read_document(finished.folder / "held_out" / "evaluate" / "config.yaml").value
    assert held_out["policy"]["arguments"]["model"] == str(finished.folder / f"iteration_0{best}" / "train" / "final")
    assert held_out["baseline"]["arguments"]["model"] == str(finished.folder / "iteration_01" / "train" / "base")
    compared = read_document(finished.folder / "iteration_02" / "evaluate" / "config.yaml").value
    assert compared["baseline"] == str(finished.folder / "iteration_01" / "evaluate")
    assert not (finished.folder / "iteration_02" / "evaluate" / "baseline").exists()


def test_the_report_has_every_iteration_with_its_interval(finished: LoopResult) -> None:
    report = json.loads((finished.folder / "report.json").read_text())
    assert [one["number"] for one in report["iterations"]] == [1, 2, 3]
    assert report["before"]["num_tasks"] == 2
    for one in report["iterations"]:
        score = one["score"]
        assert score["low"] <= score["value"] <= score["high"]
        assert one["collected"]["num_episodes"] == 24
    rates = [one["collected"]["num_successes"] / 24 for one in report["iterations"]]
    assert abs(rates[1] - 0.2) < 0.25
    assert abs(rates[2] - 0.5) < 0.3
    assert report["held_out"]["split"] == "test"
    page = (finished.folder / "report.html").read_text()
    assert page.count("<svg") == 1
    assert "iteration_03/evaluate/report.html" in page
    assert "held_out/evaluate/report.html" in page


def test_what_is_done_is_not_done_again(finished: LoopResult) -> None:
    before = files(finished.folder)
    again = went(small(finished.folder))
    assert states(again) == [[], [], []]
    assert {name: facts for name, facts in files(finished.folder).items() if "held_out/" not in name} == {
        name: facts for name, facts in before.items() if "held_out/" not in name
    }
    assert again.history == finished.history


def test_a_loop_that_was_moved_is_still_done(copy: Path) -> None:
    config = read_run_config(copy / "config.yaml", [f"output_dir={copy}"])
    planned = plan_loop(config)
    assert [[one.state for one in stages] for _, stages in planned] == [["done"] * 4] * 3
    assert find_model(copy).resolve().is_relative_to(copy)


def test_more_iterations_go_on_with_those_that_are_there(copy: Path) -> None:
    before = files(copy)
    result = went(small(copy, iterations=4))
    assert states(result) == [[], [], [], ALL]
    after = files(copy)
    earlier = [name for name in before if name.startswith("iteration")]
    assert [after[name] for name in earlier] == [before[name] for name in earlier]
    assert len(json.loads((copy / "report.json").read_text())["iterations"]) == 4


def test_an_iteration_can_be_done_anew_whole_or_from_a_stage_on(copy: Path) -> None:
    before = files(copy)
    from_train = went(small(copy), start_from="train", start_iteration=2)
    assert states(from_train) == [[], ["train", "evaluate"], ALL]
    assert files(copy)["iteration_02/collect/config.yaml"] == before["iteration_02/collect/config.yaml"]
    whole = went(small(copy), start_iteration=3)
    assert states(whole) == [[], [], ALL]
    for options, said in (
        ({"start_from": "train"}, "so say in which: --from-iteration N"),
        ({"start_iteration": 9}, "numbered from 1 to 3"),
    ):
        with pytest.raises(ConfigError, match=said):
            run(small(copy), **options)  # type: ignore[arg-type]


def test_another_setting_is_refused_with_the_iteration(copy: Path) -> None:
    before = files(copy)
    with pytest.raises(ConfigError, match=r"iteration 1: curate.only_success was True and is False.*--from-iteration"):
        run(small(copy, curate={"only_success": False}))
    with pytest.raises(ConfigError, match=r"iteration 2: train.model.path|iteration 2: what the train stage read"):
        run(small(copy, loop={"train_from": "first"}))
    assert files(copy) == before


@pytest.mark.parametrize(("number", "stage"), [(1, "train"), (2, "collect"), (2, "curate"), (3, "evaluate")])
def test_what_was_interrupted_goes_on_at_its_stage(in_place: Path, number: int, stage: str) -> None:
    """What a kill leaves: a stage that has begun, and nothing after it."""
    for folder in in_place.glob("iteration_*"):
        if int(folder.name[-2:]) > number:
            shutil.rmtree(folder)
    shutil.rmtree(in_place / "held_out")
    folder = in_place / f"iteration_0{number}"
    for later in ALL[ALL.index(stage) + 1 :]:
        shutil.rmtree(folder / later)
        (folder / "stages" / f"{later}.json").unlink()
    marker = folder / "stages" / f"{stage}.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"status": "begun", "outputs": []}))
    before = files(in_place)
    result = went(small(in_place))
    expected = [[] if n < number else ALL[ALL.index(stage) :] if n == number else ALL for n in (1, 2, 3)]
    assert states(result) == expected
    after = files(in_place)
    done = [name for name in before if name.startswith(tuple(f"iteration_0{n}/" for n in range(1, number)))]
    done += [f"iteration_0{number}/{one}/config.yaml" for one in ALL[: ALL.index(stage)]]
    assert [after[name] for name in done] == [before[name] for name in done]
    if stage == "collect":
        outcome = result.iterations[1].outcome("collect")
        assert outcome is not None
        assert outcome.result.num_played == 0


def test_without_collecting_an_iteration_trains_on_the_same_data_again(tmp_path: Path) -> None:
    result = went(small(tmp_path / "run", loop={"collect_every": 2}))
    assert states(result) == [ALL, ["train", "evaluate"], ALL]
    second, third = (read_document(result.folder / f"iteration_0{n}" / "train" / "config.yaml").value for n in (2, 3))
    assert second["data"]["path"] == str(result.folder / "iteration_01" / "curate" / "train.jsonl")
    assert second["data"]["validation_path"] == str(result.folder / "iteration_01" / "curate" / "validation.jsonl")
    assert third["model"]["path"] == str(result.folder / "iteration_02" / "train" / "final")
    third_played = read_episodes(str(result.folder / "iteration_03" / "collect"))
    assert next(iter(third_played)).metadata["task_index"] == 24


def test_demonstrations_are_mixed_in_by_their_share(tmp_path: Path) -> None:
    result = went(small(tmp_path / "run", demonstrations={"share": 0.25}, evaluate=None))
    for number in (2, 3):
        folder = result.folder / f"iteration_0{number}"
        (sources,) = [read_document(folder / "train" / "config.yaml").value["data"]["sources"]]
        assert {name: source["ratio"] for name, source in sources.items()} == {
            "collected": 0.75,
            "demonstrations": 0.25,
        }
        assert sources["demonstrations"]["path"] == str(result.folder / "iteration_01" / "curate" / "train.jsonl")
        assert not set(ids(folder / "curate" / "train.jsonl")) & set(ids(result.folder / "iteration_01" / "collect"))
    assert set(ids(result.folder / "iteration_03" / "curate" / "train.jsonl")) & set(
        ids(result.folder / "iteration_02" / "collect")
    )
    rows = [json.loads(row) for row in (folder / "train" / "metrics.jsonl").read_text().splitlines()]
    assert any("demonstrations" in json.dumps(row) for row in rows)


def test_a_teacher_that_is_a_model_too_may_give_the_demonstrations() -> None:
    def read(teacher: str) -> RunConfig:
        train = SMALL["train"] | {"model": {"path": "student"}}
        collect = SMALL["collect"] | {"policy": {"name": "local", "arguments": {"model": teacher}}}
        sections = {"loop": {}, "train": train, "collect": collect, "demonstrations": {"share": 0.5}}
        return read_run_config(SMALL | sections | {"output_dir": "x"})

    assert not read("teacher").is_played_by_model
    with pytest.raises(ConfigError, match=r"demonstrations\.path: the first iteration is played by the model"):
        read("student")


def test_a_plain_run_mixes_demonstrations_in_too(tmp_path: Path, finished: LoopResult) -> None:
    rows = str(finished.folder / "iteration_01" / "curate" / "train.jsonl")
    config = small(tmp_path / "run", iterations=None, loop=None, evaluate=None, demonstrations={"path": rows})
    result = understudy.run(config)
    assert not isinstance(result, LoopResult)
    assert understudy.run(config).outcome("train").result is None
    with pytest.raises(ConfigError, match=r"train.data.sources.collected.ratio was 0.5 and is 0.7"):
        understudy.run(config, overrides=["demonstrations.share=0.3"])


def test_a_loop_without_evaluation_ends_with_its_last_model(tmp_path: Path) -> None:
    result = went(small(tmp_path / "run", iterations=2, evaluate=None))
    assert result.is_complete
    assert result.held_out is None
    assert find_model(result.folder).resolve() == tmp_path / "run" / "iteration_02" / "train" / "final"


def write_scores(folder: Path, scores: list[float | None]) -> None:
    """Write evaluations into the folder of a loop, that of the first model in front."""
    for number, value in enumerate(scores):
        place = folder / f"iteration_{max(number, 1):02d}" / "evaluate" / "report.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        side = "policy" if number else "baseline"
        estimate = {"value": value, "low": 0.0, "high": 1.0, "num_tasks": 9, "num_samples": 9}
        before = json.loads(place.read_text()) if place.exists() else {}
        place.write_text(json.dumps(before | {side: {"success": estimate if value is not None else None}}))


@pytest.mark.parametrize(
    ("scores", "loop", "best", "is_early"),
    [
        ([0.1, 0.2, 0.3, 0.25, 0.3], {"patience": 2}, 2, True),
        ([0.1, 0.2, 0.3, 0.25], {"patience": 2}, 2, False),
        ([0.1, 0.2, 0.2, 0.31], {"patience": 2}, 3, False),
        ([0.5, 0.4, 0.45], {"patience": 2}, 2, True),
        ([0.1, 0.2, 0.21, 0.22], {"patience": 2, "min_improvement": 0.05}, 3, True),
        ([0.1, 0.3, 0.2, 0.1, 0.0], {}, 1, False),
    ],
)
def test_the_best_is_the_first_highest_and_patience_counts_what_is_no_better(
    tmp_path: Path, scores: list[float], loop: dict[str, Any], best: int, is_early: bool
) -> None:
    config = read_run_config(small(tmp_path, iterations=9, loop=loop))
    write_scores(tmp_path, scores)
    history = read_history(config, len(scores) - 1)
    assert (history.best, history.is_early) == (best, is_early)


def test_each_iteration_of_a_mix_has_its_shares_and_new_tasks(tmp_path: Path) -> None:
    sums, maze = {"name": "math", "ratio": 2}, {"name": "grid", "arguments": {"size": 4}, "ratio": 1}
    mix = {"name": "mix", "arguments": {"environments": {"sums": sums, "maze": maze}}}
    result = went(small(tmp_path / "run", iterations=2, collect={"environment": mix}, evaluate={"num_tasks": 3}))
    assert result.is_complete
    collected = [list(read_episodes(tmp_path / "run" / f"iteration_0{n}" / "collect")) for n in (1, 2)]
    assert [Counter(one.environment for one in part) for part in collected] == [{"sums": 16, "maze": 8}] * 2
    assert len({str(one.task) for part in collected for one in part}) == 48
    report = json.loads((tmp_path / "run" / "held_out" / "evaluate" / "report.json").read_text())
    assert {name: one["num_tasks"] for name, one in report["policy"]["environments"].items()} == {"sums": 2, "maze": 1}


def test_an_iteration_without_a_score_cannot_be_chosen(tmp_path: Path) -> None:
    write_scores(tmp_path, [0.1, None])
    with pytest.raises(ConfigError, match="no success is known of iteration 1"):
        read_history(read_run_config(small(tmp_path)), 1)


def test_a_loop_stops_when_nothing_gets_better(tmp_path: Path) -> None:
    result = went(small(tmp_path / "run", iterations=6, loop={"patience": 2}))
    assert result.history is not None
    assert result.history.is_early  # a model of two steps solves nothing
    assert len(result.iterations) == 2
    assert states(went(small(tmp_path / "run", iterations=6, loop={"patience": 2}))) == [[], []]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"loop": {"patiense": 1}}, "Did you mean 'loop.patience'"),
        ({"loop": {"split": "test"}}, "loop.split and evaluate.split are both test: .* tasks that it was chosen by"),
        ({"loop": {"patience": 1}, "evaluate": None}, "loop.patience waits for better evaluations; give evaluate"),
        ({"loop": {"beta": [1.5]}}, "give chances from 0 to 1"),
        ({"loop": {"beta": [0.5]}}, "loop.beta is for labelled states; give collect.labeler"),
        ({"loop": {"policy": {"arguments": {"model": "m"}}}}, "which model plays is for the loop to say"),
        ({"loop": {"collect_every": 2, "train_from": "first"}}, "gives the same again"),
        ({"loop": {"min_improvement": 0.1}}, "min_improvement says what patience waits for"),
        ({"loop": {"policy": {"name": "lokal"}}}, "unknown policy 'lokal'. Did you mean 'local'"),
        ({"iterations": None}, "loop says how iterations go on from each other; give iterations"),
        ({"curate": None}, "iterations collect, curate and train; give these sections"),
        ({"collect": {"policy": None}}, "collect.policy: say who plays the first iteration, such as expert"),
        ({"collect": {"policies": {"agent": {"name": "expert"}}}}, "so the model would never play"),
        ({"train": {"policies": {"agent": {}}}, "evaluate": None}, "iterations train one model"),
        (
            {"train": {"objective": {"name": "world_model"}}, "evaluate": {"policy": {"name": "random"}}},
            "objective world_model trains no actions; leave out evaluate",
        ),
        ({"evaluate": {"num_tasks": 10**6}}, "1,000,000"),
        ({"collect": {"labeler": {"name": "exprt"}}}, "unknown policy 'exprt'"),
        ({"curate": {"hindsight": True}, "collect": {"environment": {"name": "function_gym"}}}, "no relabel"),
        ({"demonstrations": {"share": 1.5}}, "demonstrations.share"),
    ],
)
def test_a_mistake_is_found_before_anything_is_made(tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    with pytest.raises(UnderstudyError, match=said):
        run(small(tmp_path / "run", **sections))
    assert not (tmp_path / "run").exists()


def test_loops_and_plain_runs_leave_each_others_folders_alone(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds a run with iterations; give iterations"):
        run(small(copy, iterations=None, loop=None))
    plain = small(tmp_path / "plain", iterations=None, loop=None, train=None, evaluate=None)
    run(plain)
    with pytest.raises(ConfigError, match="holds a run without iterations"):
        run(small(tmp_path / "plain"))


def with_model(folder: Path, **sections: Any) -> RunConfig:
    """Return the small config with a model that is there and nobody else to play."""
    loop = {"policy": {"name": "local", "arguments": {"temperature": 1.0}}}
    return read_run_config(small(folder, train={"model": {"path": "m"}}, loop=loop) | sections)


def test_a_model_that_is_there_plays_from_the_beginning(tmp_path: Path) -> None:
    collect = {key: value for key, value in SMALL["collect"].items() if key != "policy"}
    train = {"model": {"path": "m"}, "rendering": {"null_content": "null"}}
    config = with_model(tmp_path, collect=collect, train=train)
    players = [iteration_config(config, number).collect for number in (1, 2)]
    assert [one.policy.model_dump() for one in players if one is not None and one.policy is not None] == [
        {"name": "local", "arguments": {"temperature": 1.0, "profile": {"null_content": "null"}, "model": model}}
        for model in ("m", str(tmp_path / "iteration_01" / "train" / "final"))
    ]
    best = held_out_config(config, 2).evaluate
    assert best is not None
    assert best.policy is not None
    assert best.policy.arguments["profile"] == {"null_content": "null"}
    assert best.baseline.arguments == best.policy.arguments | {"model": "m"}  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="the first iteration is played by the model, so say what to mix in"):
        with_model(tmp_path, collect=collect, demonstrations={})


def test_every_iterations_config_makes_the_same_run(finished: LoopResult) -> None:
    config = read_run_config(small(finished.folder))
    for number in (1, 2, 3):
        one = iteration_config(config, number)
        assert read_run_config(finished.folder / f"iteration_0{number}" / "config.yaml") == one
        assert RunConfig.model_validate(one.own()) == one
    assert read_run_config(finished.folder / "config.yaml") == config
    assert read_run_config(finished.folder / "held_out" / "config.yaml") == held_out_config(
        config,
        finished.history.best,  # type: ignore[union-attr]
    )


def test_betas_go_from_iteration_to_iteration_and_the_last_one_stays(tmp_path: Path) -> None:
    collect = SMALL["collect"] | {"labeler": {"name": "expert"}}
    config = read_run_config(small(tmp_path, iterations=4, collect=collect, loop={"beta": [1.0, 0.5]}))
    found = [iteration_config(config, number).collect for number in (1, 2, 3, 4)]
    assert [one.beta for one in found if one is not None] == [1.0, 0.5, 0.5, 0.5]

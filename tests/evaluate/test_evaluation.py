"""An evaluation in its folder: scores, comparison, resuming, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.evaluate.playing import config, run, skilled
from understudy.collect import collection
from understudy.collect.journal import Journal
from understudy.errors import ConfigError, UnderstudyError
from understudy.evaluate import evaluate
from understudy.formats import read_episodes
from understudy.types import Episode


def test_an_evaluation_is_a_collection_plus_scores(tmp_path: Path) -> None:
    result = run(tmp_path / "out", baseline=skilled(0.3))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"episodes", "baseline", "report.json", "report.html", "config.yaml", "provenance.json"}
    episodes = list(read_episodes(str(tmp_path / "out" / "episodes")))
    assert {episode.split for episode in episodes} == {"test"}
    assert result.metrics.success.value == sum(episode.success for episode in episodes) / 40
    assert (result.label, result.baseline_label, result.num_errors) == ("Skilled", "Skilled", 0)


def test_a_planted_difference_is_found_and_none_where_there_is_none(tmp_path: Path) -> None:
    better = run(tmp_path / "better", baseline=skilled(0.3)).comparison.success
    assert better.low > 0.2
    assert better.p_value < 0.001
    assert better.num_worse == 0
    equal = run(tmp_path / "equal", baseline={"name": skilled(0.8)["name"], "arguments": {"skill": 0.8}})
    assert (equal.comparison.success.difference, equal.comparison.success.p_value) == (0.0, 1.0)
    assert equal.comparison.success.low < 0 < equal.comparison.success.high


def test_an_earlier_evaluation_is_a_baseline_as_well(tmp_path: Path) -> None:
    run(tmp_path / "before", policy=skilled(0.3), num_tasks=30)
    found = run(tmp_path / "after", baseline=str(tmp_path / "before"))
    assert (found.comparison.num_common, found.comparison.num_only_policy) == (30, 10)
    assert found.baseline_label == f"Skilled ({tmp_path / 'before'})"
    again = run(tmp_path / "again", baseline=str(tmp_path / "before" / "episodes"))
    assert again.comparison == found.comparison


@pytest.mark.parametrize("within", ["evaluate", "held_out/evaluate"])
def test_the_folder_of_a_run_stands_for_its_evaluation(tmp_path: Path, within: str) -> None:
    run(tmp_path / "run" / within, policy=skilled(0.3), num_tasks=30)
    found = run(tmp_path / "after", baseline=str(tmp_path / "run"))
    assert found.comparison.num_common == 30
    assert found.baseline_label == f"Skilled ({tmp_path / 'run'})"


def test_the_report_in_json_has_all_figures(tmp_path: Path) -> None:
    result = run(tmp_path / "out", samples_per_task=2, baseline=skilled(0.3, fault=0.1))
    report = json.loads(result.json_path.read_text())
    assert report["policy"]["success"]["value"] == result.metrics.success.value
    assert report["policy"]["pass_at_k"][1]["k"] == 2
    assert report["comparison"]["success"]["method"] == "paired permutation"
    assert report["baseline"]["num_errors"] == result.num_errors > 0
    assert report["baseline"]["errors"]
    assert (report["split"], report["samples_per_task"], report["confidence"]) == ("test", 2, 0.95)


class Interrupted(KeyboardInterrupt):
    pass


def test_an_interrupted_evaluation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[str] = []
    keep = Journal.append

    def append(self: Journal, episode: Episode) -> None:
        if len(played) == 55:  # the policy's 40 are there, and some of the baseline's
            raise Interrupted
        played.append(episode.id)
        keep(self, episode)

    monkeypatch.setattr(Journal, "append", append)
    with pytest.raises(Interrupted):
        run(tmp_path / "out", baseline=skilled(0.3))
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["status"] == "interrupted"
    assert not (tmp_path / "out" / "report.json").exists()
    monkeypatch.setattr(Journal, "append", lambda self, episode: (played.append(episode.id), keep(self, episode)))
    found = run(tmp_path / "out", baseline=skilled(0.3))
    assert len(played) == len(set(played)) == 80
    assert found.comparison.num_common == 40


def test_what_is_done_is_only_scored_again_and_more_tasks_can_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path / "out")
    played: list[str] = []
    play = collection._play

    async def watched(config: Any, plan: Any, missing: list[int], *rest: Any) -> None:
        played.extend(plan[index].id for index in missing)
        await play(config, plan, missing, *rest)

    monkeypatch.setattr(collection, "_play", watched)
    narrow = run(tmp_path / "out", confidence=0.8)
    assert (played, narrow.metrics.success.value) == ([], first.metrics.success.value)
    assert narrow.metrics.success.low > first.metrics.success.low
    more = run(tmp_path / "out", num_tasks=45)
    assert (len(played), more.metrics.num_tasks) == (5, 45)


def test_episodes_of_weights_that_have_changed_are_not_taken_for_the_new_ones(base: Path, tmp_path: Path) -> None:
    from tests.training import make_base

    shutil.copytree(base, tmp_path / "model")
    policy = {"name": "local", "arguments": {"model": str(tmp_path / "model"), "max_new_tokens": 4}}
    settings = {"policy": policy, "num_tasks": 2, "max_turns": 1}
    first = run(tmp_path / "out", **settings)
    assert first.label == f"local {tmp_path / 'model'}"
    assert first.metrics.completion_tokens.value <= 4
    assert first.metrics.prompt_tokens.value > 50
    run(tmp_path / "out", **settings)
    shutil.rmtree(tmp_path / "model")
    make_base(tmp_path / "model", hidden_size=16)
    with pytest.raises(ConfigError, match="its weights have changed since"):
        run(tmp_path / "out", **settings)
    evaluate(config(tmp_path / "out", **settings), overwrite=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"environment": {"name": "mth"}}, "Did you mean 'math'"),
        ({"num_tasks": 5000}, r"the test split has 1,000 tasks.*of an evaluation num_tasks"),
        ({"k": [1, 4]}, "pass@4 needs samples_per_task: 4 or more"),
        ({"k": [2, 1], "samples_per_task": 2}, "in rising order"),
        ({"environment": None}, "give environment"),
        ({"policy": None}, "give policy"),
        ({"policy": None, "policies": {"agent": skilled(1)}, "baseline": skilled(0)}, "plays in place of policy"),
        ({"baseline": "nowhere"}, "nowhere"),
        (
            {"environment": None, "policy": None, "loss": {"path": "x", "model": "m"}, "baseline": "nowhere"},
            "is held against what is played; give environment",
        ),
        ({"loss": {"data_path": "rows.jsonl"}}, "loss.model: name the model to measure"),
        ({"num_episodes": 4}, "num_episodes"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_refused_before_anything_is_made(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnderstudyError, match=message):
        run(tmp_path / "out", **fields)
    assert not (tmp_path / "out").exists()


def test_a_baseline_that_played_something_else_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "before", num_tasks=5)
    with pytest.raises(ConfigError, match="none of them is played now with the same seed"):
        run(tmp_path / "out", baseline=str(tmp_path / "before"), seed=1000)
    with pytest.raises(ConfigError, match=r"is of environment .*math.*grid"):
        run(tmp_path / "out", baseline=str(tmp_path / "before"), environment={"name": "grid"})


def test_a_run_without_evaluation_is_no_baseline_and_neither_is_the_evaluation_itself(tmp_path: Path) -> None:
    for name in ("stages", "collect"):
        (tmp_path / "before" / name).mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"is a run that has no evaluation; name one, .*: .*/before/collect"):
        run(tmp_path / "out", baseline=str(tmp_path / "before"))
    run(tmp_path / "out", num_tasks=5)
    with pytest.raises(ConfigError, match="is where this evaluation is written; name an earlier one"):
        run(tmp_path / "out", num_tasks=5, baseline=str(tmp_path / "out"))


def test_another_evaluation_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "out", num_tasks=5)
    before = (tmp_path / "out" / "config.yaml").read_text()
    with pytest.raises(ConfigError, match="holds a collection with policy"):
        run(tmp_path / "out", num_tasks=5, policy=skilled(0.1))
    assert (tmp_path / "out" / "config.yaml").read_text() == before

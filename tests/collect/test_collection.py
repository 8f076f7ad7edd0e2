"""A collection in its folder: resumable, idempotent, in the plan's order, with statistics."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.collect.kill_campaign import kill_and_resume
from understudy.api.pipeline.stages import CollectStage
from understudy.collect import CollectConfig, CollectResult, collect
from understudy.collect import collection as module
from understudy.collect.collection import agents_of
from understudy.collect.journal import Journal
from understudy.config import config_from_dict
from understudy.curate import EpisodeStatistics
from understudy.environments.math import Math
from understudy.errors import CollectError, ConfigError
from understudy.evaluate import EvaluateConfig, check_evaluation
from understudy.formats import read_episodes
from understudy.policies import Action, Context, Policy
from understudy.types import Episode, Message

QUIET = Console(file=io.StringIO())


def config(folder: Path, **fields: Any) -> CollectConfig:
    base = {
        "environment": {"name": "math"},
        "policy": {"name": "expert"},
        "num_episodes": 20,
        "output_dir": str(folder),
    }
    return config_from_dict(CollectConfig, base | fields)


def run(folder: Path, **fields: Any) -> CollectResult:
    return collect(config(folder, **fields), statistics=EpisodeStatistics, console=QUIET)


def episodes(result: CollectResult) -> list[Episode]:
    return list(read_episodes(str(result.path), "native"))


class Flaky(Policy):
    """Fails in the first play of every third task, and answers the others wrongly."""

    name = "flaky"
    plays: dict[str, int] = {}  # noqa: RUF012

    async def act(self, context: Context) -> Action:
        question = context.messages[1].text()
        self.plays[question] = self.plays.get(question, 0) + 1
        if len(question) % 3 == 0 and self.plays[question] == 1:
            raise OSError("the line went dead")
        return Action(Message("assistant", "It is 0.5."))


FLAKY = {"name": f"{__name__}:Flaky"}


class Counted(Math):
    """Knows how many of its kind are open."""

    num_open = 0
    num_made = 0

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        Counted.num_open += 1
        Counted.num_made += 1

    async def close(self) -> None:
        await super().close()
        Counted.num_open -= 1


COUNTED: dict[str, Any] = {"name": f"{__name__}:Counted"}


@pytest.mark.parametrize("fault", [{"num_episodes": 10**9}, {"policies": {"nobody": {"name": "expert"}}}])
def test_every_environment_is_closed_those_too_that_are_only_asked_for_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    monkeypatch.setattr(Counted, "num_made", 0)
    run(tmp_path / "out", environment=COUNTED, num_episodes=2)
    with pytest.raises(ConfigError):
        run(tmp_path / "other", environment=COUNTED, **fault)
    CollectStage(config(tmp_path / "third", environment=COUNTED)).check()
    evaluation = {"environment": COUNTED, "policy": {"name": "expert"}, "output_dir": str(tmp_path / "evaluation")}
    check_evaluation(config_from_dict(EvaluateConfig, evaluation | {"baseline": {"name": "random"}, "num_tasks": 2}))
    assert agents_of(config(tmp_path, environment=COUNTED).environment) == ("agent",)
    assert Counted.num_made >= 7
    assert Counted.num_open == 0


def test_episodes_are_named_by_time_in_the_plans_order_with_statistics_beside(tmp_path: Path) -> None:
    result = run(tmp_path / "out", samples_per_task=2, seed=100, split="test")
    found = episodes(result)
    assert [(e.metadata["task_index"], e.metadata["sample"]) for e in found] == [(i // 2, i % 2) for i in range(20)]
    assert [e.seed for e in found] == [100 + i // 2 for i in range(20)]
    assert len({e.id for e in found}) == 20
    assert {(e.environment, e.split, e.success) for e in found} == {("math", "test", True)}
    assert all(e.created_at for e in found)
    assert result.path.name.startswith("episodes_20")
    stats = json.loads(result.stats_path.read_text())
    assert result.stats_path.name == result.path.stem + "_stats.json"
    assert (stats["num_episodes"], stats["num_tasks"], stats["success_rate"], stats["num_errors"]) == (20, 10, 1.0, 0)
    assert stats["overall"]["num_turns"] == 40
    assert list(stats["by"]["environment"]) == ["math"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [".lock", "config.yaml", "provenance.json", "run.log", result.path.name, result.stats_path.name]
    )


def test_the_folder_is_read_as_a_source_as_it_is(tmp_path: Path) -> None:
    run(tmp_path / "out")
    assert len(list(read_episodes(str(tmp_path / "out")))) == 20


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.zst", "parquet"])
def test_every_kind_of_output_holds_the_same_episodes(tmp_path: Path, kind: str) -> None:
    plain, other = episodes(run(tmp_path / "a")), episodes(run(tmp_path / "b", output_format=kind))
    assert [(e.id, e.trajectories, e.reward) for e in plain] == [(e.id, e.trajectories, e.reward) for e in other]


def test_what_is_done_is_not_done_again_and_more_can_be_asked_for(tmp_path: Path) -> None:
    first = run(tmp_path / "out")
    before = first.path.stat().st_mtime_ns
    again = run(tmp_path / "out")
    assert (again.num_played, again.path, again.num_successes) == (0, first.path, 20)
    assert first.path.stat().st_mtime_ns == before
    kept = {e.id: e.created_at for e in episodes(first)}
    time.sleep(1.1)
    more = run(tmp_path / "out", num_episodes=30, concurrency=2)
    assert (more.num_played, more.num_episodes, more.path) == (10, 30, first.path)
    found = {e.id: e.created_at for e in episodes(more)}
    assert len(found) == 30
    assert kept.items() <= found.items()
    assert run(tmp_path / "out", num_episodes=5).num_episodes == 5


def test_another_kind_of_output_takes_the_place_of_the_first(tmp_path: Path) -> None:
    first = run(tmp_path / "out")
    second = run(tmp_path / "out", output_format="parquet")
    assert not first.path.exists()
    assert len(episodes(second)) == 20


def test_episodes_of_different_making_are_not_mixed(tmp_path: Path) -> None:
    run(tmp_path / "out")
    for change in ({"policy": {"name": "random"}}, {"seed": 1}, {"max_turns": 3}, {"samples_per_task": 2}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            run(tmp_path / "out", **change)
    result = collect(config(tmp_path / "out", seed=1), overwrite=True, console=QUIET)
    assert [e.seed for e in episodes(result)] == list(range(1, 21))


def test_faults_are_counted_apart_and_played_again_the_next_time(tmp_path: Path) -> None:
    Flaky.plays.clear()
    first = run(tmp_path / "out", policy=FLAKY)
    found = episodes(first)
    assert 0 < first.num_errors == sum(e.error is not None for e in found) < 20
    assert first.num_known == 20 - first.num_errors
    stats = json.loads(first.stats_path.read_text())
    assert stats["errors"] == {"policy of agent: OSError: the line went dead": first.num_errors}
    assert {e.success for e in found if e.error is None} == {False}
    second = run(tmp_path / "out", policy=FLAKY)
    assert (second.num_played, second.num_errors) == (first.num_errors, 0)
    assert sorted(e.id for e in episodes(second)) == sorted(e.id for e in found)


def test_a_fault_that_repeats_itself_stops_the_collection_and_keeps_what_is_there(tmp_path: Path) -> None:
    class Dead(Policy):
        async def act(self, context: Context) -> Action:
            raise OSError("nobody home")

    module_name = sys.modules[__name__]
    module_name.Dead = Dead  # type: ignore[attr-defined]
    with pytest.raises(
        CollectError, match="5 episodes in a row ended by a fault, the last one by: policy of agent: OSError"
    ):
        run(tmp_path / "out", policy={"name": f"{__name__}:Dead"}, stop_after_errors=5, concurrency=1)
    assert len((tmp_path / "out" / module.JOURNAL).read_text().splitlines()) == 5
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["status"] == "failed"


def test_progress_shows_the_success_so_far(tmp_path: Path) -> None:
    shown = io.StringIO()
    Flaky.plays.clear()
    console = Console(file=shown, width=200)
    import understudy.runs.progress as progress

    original = progress.Progress.__init__

    def often(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs | {"plain_seconds": 0.0})

    progress.Progress.__init__ = often  # type: ignore[method-assign]
    try:
        collect(config(tmp_path / "out", policy=FLAKY), console=console)
    finally:
        progress.Progress.__init__ = original  # type: ignore[method-assign]
    last = shown.getvalue().strip().splitlines()[-1]
    assert "20 of 20 episodes" in last
    assert "success 0.0%" in last
    assert "errors" in last


def test_too_few_tasks_are_said_before_anything_is_played(tmp_path: Path) -> None:
    few = {"name": "math", "arguments": {"num_tasks": 5}}
    with pytest.raises(ConfigError, match=r"num_episodes is 20, but the train split has 5 tasks.*num_tasks.train=20"):
        run(tmp_path / "out", environment=few)
    assert run(tmp_path / "all", environment=few, num_episodes=None, samples_per_task=3).num_episodes == 15


class Endless:
    """An environment without tasks."""

    agents = ("left", "right")

    async def reset(self, task: Any = None, *, seed: int | None = None) -> Any:
        from understudy.environments import Observation, Step

        message = Message("user", f"seed {seed}")
        return Step(observations={"left": Observation((message,)), "right": Observation((message,))})

    async def step(self, actions: Any) -> Any:
        from understudy.environments import Step

        return Step(terminated=True, success={"left": True, "right": False})

    async def close(self) -> None: ...


class Unwritable(Endless):
    """Says of every third episode something that is no JSON."""

    async def reset(self, task: Any = None, *, seed: int | None = None) -> Any:
        step = await super().reset(task, seed=seed)
        step.observations["left"].info["what"] = {seed} if seed is not None and seed % 3 == 0 else seed
        return step


def test_an_episode_that_cannot_be_written_is_a_fault_and_the_others_are_kept(tmp_path: Path) -> None:
    fields = {"environment": {"name": f"{__name__}:Unwritable"}, "policy": {"name": "random"}, "num_episodes": 7}
    result = run(tmp_path / "out", **fields)
    faulty = [episode for episode in episodes(result) if episode.error is not None]
    assert (result.num_errors, [episode.seed for episode in faulty]) == (3, [0, 3, 6])
    assert all("what happened cannot be written: the row cannot be written as JSON" in str(e.error) for e in faulty)
    assert run(tmp_path / "out", **fields).num_played == 3


def test_an_environment_without_tasks_is_played_by_seed_and_several_agents_have_their_policies(tmp_path: Path) -> None:
    endless = {"name": f"{__name__}:Endless"}
    with pytest.raises(ConfigError, match="has no task set"):
        run(tmp_path / "a", environment=endless, num_episodes=None, policy={"name": "random"})
    with pytest.raises(ConfigError, match="agent 'left' has no policy"):
        run(tmp_path / "a", environment=endless, policy=None, policies={"right": FLAKY})
    with pytest.raises(ConfigError, match=r"policies.middle: the environment's agents are left, right"):
        run(tmp_path / "a", environment=endless, policies={"middle": FLAKY})
    result = run(
        tmp_path / "b", environment=endless, policy={"name": "random"}, policies={"right": FLAKY}, num_episodes=3
    )
    found = episodes(result)
    assert [e.trajectories[0].messages()[0].text() for e in found] == ["seed 0", "seed 1", "seed 2"]
    assert [(t.agent, t.policy) for t in found[0].trajectories] == [("left", "random"), ("right", "flaky")]


def test_a_collection_that_is_killed_again_and_again_ends_complete(tmp_path: Path) -> None:
    stood = kill_and_resume(tmp_path / "out", num_episodes=300, num_kills=2, seed=int(os.environ.get("SEED", "1")))
    assert stood == sorted(stood)
    assert stood[-1] > 0


def test_a_kill_between_the_output_and_the_end_of_the_journal_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*args: Any, **kwargs: Any) -> None:
        raise Killed

    monkeypatch.setattr(module, "write_atomically", killed)
    with pytest.raises(Killed):
        run(tmp_path / "out")
    monkeypatch.undo()
    assert (tmp_path / "out" / module.JOURNAL).exists()
    result = run(tmp_path / "out")
    assert result.num_played == 0
    assert len(episodes(result)) == 20
    assert len(list((tmp_path / "out").glob("episodes_*.jsonl"))) == 1


def test_an_interrupt_says_interrupted_and_the_rest_is_played_later(tmp_path: Path) -> None:
    class Impatient(Policy):
        name = "expert"
        num = 0

        def for_episode(self, start: Any) -> Policy:
            from understudy.policies.scripted import ExpertPolicy

            Impatient.num += 1
            if Impatient.num == 8:
                raise KeyboardInterrupt
            return ExpertPolicy().for_episode(start)

        async def act(self, context: Context) -> Action:
            raise AssertionError

    sys.modules[__name__].Impatient = Impatient  # type: ignore[attr-defined]
    impatient = {"name": f"{__name__}:Impatient"}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", policy=impatient, concurrency=1)
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["status"] == "interrupted"
    assert len(Journal(tmp_path / "out" / module.JOURNAL)._entries) == 7
    result = run(tmp_path / "out", policy=impatient)
    assert (result.num_played, result.num_successes) == (13, 20)

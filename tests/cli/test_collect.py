"""understudy collect, curate and play"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.commands import ROOT, command, run_command
from understudy.cli.main import main
from understudy.formats import read_episodes

GUESSING = f"{ROOT}/examples/environments/number_guessing.py:NumberGuessing"
MATH = ["environment.name=math", "policy.name=expert", "num_episodes=12"]


def collect(folder: Path, *arguments: str) -> int:
    return main(["collect", *MATH, f"output_dir={folder}", *arguments])


def test_a_collection_needs_no_config_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert collect(tmp_path / "out") == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "played 12 episodes; success 12 of 12 (100.0%); 12 are in" in said.err
    assert collect(tmp_path / "out", "num_episodes=20") == 0
    assert "played 8 episodes (12 were there already)" in capsys.readouterr().err


def test_a_config_file_is_read_and_overridden(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        f"environment: {{name: grid, arguments: {{size: 4}}}}\npolicy: {{name: random}}\noutput_dir: {tmp_path}/out\n"
    )
    arguments = ["num_episodes=3", "environment.arguments.size=5", "split=test"]
    assert main(["collect", str(config), *arguments]) == 0
    found = list(read_episodes(f"{tmp_path}/out"))
    assert [(len(e.task["map"]), e.split, e.trajectories[0].policy) for e in found] == [(5, "test", "random")] * 3


def test_an_environment_of_ones_own_is_one_file(tmp_path: Path) -> None:
    assert collect(tmp_path / "out", f"environment.name={GUESSING}") == 0
    found = list(read_episodes(f"{tmp_path}/out"))
    assert [episode.success for episode in found] == [True] * 12


def test_the_debate_of_the_examples_is_collected_with_two_policies(tmp_path: Path) -> None:
    debate = f"{ROOT}/examples/environments/debate.py:Debate"
    assert (
        main(
            [
                "collect",
                f"environment.name={debate}",
                "policy.name=random",
                "num_episodes=4",
                f"output_dir={tmp_path}/out",
            ]
        )
        == 0
    )
    for episode in read_episodes(f"{tmp_path}/out"):
        assert [trajectory.agent for trajectory in episode.trajectories] == ["pro", "contra"]
        assert [len(trajectory.turns) for trajectory in episode.trajectories] == [2, 2]
        assert episode.error is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["environment.name=mth"], "Did you mean 'math'?"),
        (["policy.name=expirt"], "Did you mean 'expert'?"),
        (["environment.arguments.max_operatons=2"], "Did you mean 'max_operations'?"),
        (["num_episode=2"], "Did you mean 'num_episodes'?"),
        (["environment.name=nowhere.py:Thing"], "cannot import"),
        (["policy.name=local"], "local needs the argument 'model'"),
        (["split=training"], "split"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert collect(tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_faults_make_the_exit_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faulty = tmp_path / "faulty.py"
    faulty.write_text(
        "from understudy.environments.math import Math\n"
        "class Faulty(Math):\n"
        "    def on_text(self, text):\n"
        "        raise OSError('disk')\n"
    )
    assert collect(tmp_path / "out", f"environment.name={faulty}:Faulty") == 1
    assert "12 of them ended by a fault" in capsys.readouterr().err


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_says_how_to_go_on(tmp_path: Path, stop: signal.Signals) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import asyncio\n"
        "from understudy.environments.math import Math\n"
        "class Slow(Math):\n"
        "    async def step(self, actions):\n"
        "        await asyncio.sleep(0.2)\n"
        "        return await super().step(actions)\n"
    )
    arguments = [
        "collect",
        *MATH,
        f"environment.name={slow}:Slow",
        f"output_dir={tmp_path}/out",
        "num_episodes=400",
        "concurrency=4",
    ]
    child = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "out" / "_journal.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.02)
    child.send_signal(stop)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["status"] == "interrupted"


def test_what_was_collected_is_curated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collect(tmp_path / "out", "num_episodes=40")
    capsys.readouterr()
    arguments = [f"path={tmp_path}/out", f"output_dir={tmp_path}/best", "only_success=true", "max_trajectories=30"]
    assert main(["curate", *arguments, "validation_split=0.2"]) == 0
    said = capsys.readouterr()
    assert "max_trajectories" in said.out
    assert "10 not drawn" in said.out
    assert "episodes to" in said.err
    counts = [len(list(read_episodes(f"{tmp_path}/best/{name}.jsonl"))) for name in ("train", "validation")]
    assert sum(counts) == 30
    assert min(counts) > 0
    assert main(["curate", *arguments]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["curate", *arguments, "--overwrite"]) == 0


def test_keys_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for verb, key in (("collect", "samples_per_task"), ("curate", "min_reward_threshold")):
        assert main([verb, "--keys"]) == 0
        assert key in capsys.readouterr().out


def test_a_policy_can_be_watched_and_the_episode_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "e.jsonl"
    assert (
        main(["play", "grid", "size=4", "--policy", "expert", "--task", "3", "--split", "test", "--save", str(target)])
        == 0
    )
    said = capsys.readouterr().out
    assert "assistant calls move(" in said
    assert '"success": true' in said
    (episode,) = read_episodes(str(target))
    assert (episode.split, episode.success) == ("test", True)


def test_an_episode_of_a_mix_is_saved_under_the_name_of_its_environment(tmp_path: Path) -> None:
    target = tmp_path / "e.jsonl"
    mix = "environments={shop: tools, maze: {name: grid, arguments: {size: 4}}}"
    assert main(["play", "mix", mix, "--policy", "expert", "--task", "0", "--save", str(target)]) == 0
    (episode,) = read_episodes(str(target))
    assert (episode.environment, episode.task["environment"], episode.success) == ("maze", "maze", True)


def test_an_environment_that_was_played_is_closed(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from pathlib import Path\n"
        "from understudy.environments.grid import Grid\n"
        "class Own(Grid):\n"
        "    async def close(self):\n"
        "        Path(__file__).with_name('closed').touch()\n"
    )
    assert main(["play", f"{tmp_path}/own.py:Own", "size=4", "--policy", "expert"]) == 0
    assert (tmp_path / "closed").exists()


def test_a_person_plays_at_the_terminal() -> None:
    done = run_command("play", GUESSING, input="/guess 50\nhello\n/quit\n")
    assert done.returncode == 1
    assert "Guess my number." in done.stdout
    assert "Please call the tool guess." in done.stdout
    assert "the player left" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["play", "math", "--task", "10000"], "has 10,000 tasks, counted from 0"),
        (["play", "math", "--agent", "bob"], "the environment's agents are agent"),
        (["play", "math", "level"], "write it as key=value"),
        (["play", "math", "level=2"], "has no argument 'level'"),
        (["play", "math", "--split", "tset"], "Did you mean 'test'?"),
    ],
)
def test_a_wrong_play_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err

"""understudy evaluate"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.commands import command
from understudy.cli.main import main

PLAYING = ["environment.name=math", "policy.name=expert", "num_tasks=12"]


def evaluate(folder: Path, *arguments: str) -> int:
    return main(["evaluate", *PLAYING, f"output_dir={folder}", *arguments])


def test_a_table_and_a_comparison_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(tmp_path / "out", "baseline.name=random", "samples_per_task=2") == 0
    said = capsys.readouterr()
    for text in ("random", "expert", "[75.8%, 100.0%]", "pass@2", "turns of an episode"):
        assert text in said.out
    assert "success: +100 points against the baseline · 95% interval +65.7 to +100" in said.out
    assert "of 12 tasks 12 better, 0 worse" in said.out
    assert f"the report is in {tmp_path}/out/report.html" in said.err
    assert evaluate(tmp_path / "after", f"baseline={tmp_path}/out") == 0
    assert "0 better, 0 worse" in capsys.readouterr().out


def test_a_config_file_is_read_and_overridden(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "environment: {name: grid}\npolicy: {name: expert}\nbaseline: {name: random}\n"
        f"output_dir: {tmp_path}/out\n"
    )
    assert main(["evaluate", str(config), "num_tasks=3", "split=validation", "baseline=null"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["split"], report["policy"]["num_tasks"], report["baseline"]) == ("validation", 3, None)


def test_the_loss_of_a_model_is_printed(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.training import WEATHER

    arguments = [f"loss.model={base}", f"loss.data_path={WEATHER}", f"output_dir={tmp_path}/out"]
    assert main(["evaluate", *arguments]) == 0
    said = capsys.readouterr()
    assert "perplexity" in said.out
    assert "behavioral_cloning" in said.out
    pattern = r"loss.data_path: 6 episodes -> 6 held out; 15 turns rendered exactly, \d+ tokens measured"
    assert re.search(pattern, said.err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["environment.name=mth"], "Did you mean 'math'?"),
        (["baseline.nme=expert"], "Did you mean"),
        (["baseline=nowhere"], "nowhere"),
        (["k=[3]"], "pass@3 needs samples_per_task"),
        (["confidence=95"], "less than 1"),
        (["policy.name=local"], "local needs the argument 'model'"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert evaluate(tmp_path / "out", *arguments) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_faults_make_the_exit_status_1_and_are_no_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faulty = tmp_path / "faulty.py"
    faulty.write_text(
        "from understudy.environments.math import Math\n"
        "class Faulty(Math):\n"
        "    def on_text(self, text):\n"
        "        if len(text) % 2:\n"
        "            raise OSError('disk')\n"
        "        return super().on_text(text)\n"
    )
    assert evaluate(tmp_path / "out", f"environment.name={faulty}:Faulty") == 1
    said = capsys.readouterr()
    assert "episodes ended by a fault and are not counted" in said.err
    assert "100.0%" in said.out
    assert "OSError: disk" in said.out


def test_an_interrupt_says_how_to_go_on(tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import asyncio\n"
        "from understudy.environments.math import Math\n"
        "class Slow(Math):\n"
        "    async def step(self, actions):\n"
        "        await asyncio.sleep(0.2)\n"
        "        return await super().step(actions)\n"
    )
    arguments = ["evaluate", *PLAYING, f"environment.name={slow}:Slow", f"output_dir={tmp_path}/out", "num_tasks=400"]
    child = subprocess.Popen(command(*arguments, "concurrency=4"), stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "out" / "episodes" / "_journal.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["status"] == "interrupted"


def test_keys_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--keys"]) == 0
    assert "samples_per_task" in capsys.readouterr().out

"""The README's first command, as a newcomer runs it: an agent goes from failing to succeeding, in minutes.

The command is the README's own, and what it prints is held against what the README shows.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from tests.end_to_end.test_readme import QUICK_START, ROOT, commands, differs, lines, run_shell
from understudy.collect import CollectConfig, collect
from understudy.config import config_from_dict, read_document
from understudy.formats import read_episodes
from understudy.types import Episode

MAX_SECONDS = 300
MOST_SUCCESS_BEFORE = 0.1
LEAST_SUCCESS_AFTER = 0.9
NUM_IMITATED = 100
LEAST_IMITATED = 0.95


def without_figures(text: str) -> str:
    """Return text with every figure and every width alike: seconds and last digits differ between machines."""
    text = re.sub(r"\d[\d.,:]*(e[-+]\d+)?", "0", lines(text))
    return re.sub(r"─+", "─", re.sub(r"[ \n]+", " ", text))


def calls(episode: Episode) -> list[str]:
    """Return the names of the tools that an agent called, in order."""
    return [call.name for _, _, turn in episode.turns() if turn.action for call in turn.action.tool_calls]


def actions(episode: Episode) -> list[Any]:
    """Return what an agent said and called, turn by turn."""
    messages = [turn.action for _, _, turn in episode.turns() if turn.action is not None]
    return [(m.text(), [(call.name, call.parsed_arguments()) for call in m.tool_calls]) for m in messages]


def task_of(episode: Episode) -> str:
    return json.dumps(episode.task, sort_keys=True)


def num_actions(episode: Episode) -> int:
    return sum(turn.action is not None for _, _, turn in episode.turns())


def sampled_by_the_model(episode: Episode) -> bool:
    """Return whether every action was generated: its ids were recorded as they were drawn."""
    return all(turn.sampled is not None for _, _, turn in episode.turns() if turn.action is not None)


def test_an_agent_goes_from_failing_to_succeeding_in_minutes(tmp_path: Path) -> None:
    ((command, shown),) = [one for one in commands(ROOT / "README.md") if one[0] == QUICK_START]
    started = time.monotonic()
    done = run_shell(command, tmp_path, timeout=2 * MAX_SECONDS)
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stdout
    assert differs(without_figures(shown), without_figures(done.stdout)) is None, done.stdout

    run = tmp_path / "runs" / "quickstart"
    report = json.loads((run / "evaluate" / "report.json").read_text())
    before, after = report["baseline"]["success"], report["policy"]["success"]
    assert before["value"] <= MOST_SUCCESS_BEFORE
    assert after["value"] >= LEAST_SUCCESS_AFTER
    assert before["num_tasks"] == after["num_tasks"] >= 100
    assert seconds < MAX_SECONDS

    check_what_it_leaves(run)
    check_that_the_model_acted_itself(run)
    check_that_it_acts_as_the_expert(run, tmp_path / "again")


def check_what_it_leaves(run: Path) -> None:
    """A report, a plot, and a model that transformers loads."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert "<svg" in (run / "evaluate" / "report.html").read_text()
    assert (run / "train" / "loss.png").read_bytes()[:4] == b"\x89PNG"
    model: Any = AutoModelForCausalLM.from_pretrained(run / "train" / "final")
    assert model.config.model_type == "qwen3"
    assert AutoTokenizer.from_pretrained(run / "train" / "final").chat_template


def check_that_the_model_acted_itself(run: Path) -> None:
    """Held-out tasks, and calls of tools that the model wrote turn by turn, each seeing the last one's result."""
    trained_on = {task_of(e) for e in read_episodes(str(run / "collect"))}
    played = list(read_episodes(str(run / "evaluate" / "episodes")))
    assert not trained_on & {task_of(e) for e in played}
    assert {trajectory.policy for e in played for trajectory in e.trajectories} == {"local"}
    assert all(map(sampled_by_the_model, played))
    successful = [e for e in played if e.success]
    assert all(calls(e) and num_actions(e) > 1 for e in successful)


def check_that_it_acts_as_the_expert(run: Path, folder: Path) -> None:
    """On the tasks that it was trained on, what the model does turn by turn is what the expert did."""
    given = read_document(run / "config.yaml").value
    settings = given["collect"] | {
        "policy": given["evaluate"]["policy"] | {"name": "local"},
        "num_episodes": NUM_IMITATED,
        "output_dir": str(folder),
    }
    settings["policy"]["arguments"]["model"] = str(run / "train" / "final")
    collected = collect(config_from_dict(CollectConfig, settings))
    played = {task_of(e): actions(e) for e in read_episodes(str(collected.path))}
    expert = {task_of(e): actions(e) for e in read_episodes(str(run / "curate" / "train.jsonl"))}
    pairs = [(played[task], expert[task]) for task in played.keys() & expert.keys()]
    assert len(pairs) > NUM_IMITATED / 2, "some are held out for validation"
    num_turns = sum(len(shown) for _, shown in pairs)
    num_equal = sum(done == shown for both in pairs for done, shown in zip(*both, strict=False))
    assert num_equal >= LEAST_IMITATED * num_turns


def test_the_readme_opens_with_the_quick_start() -> None:
    readme = (ROOT / "README.md").read_text()
    first = re.search(r"```bash\n(.*?)```", readme, re.S)
    assert first is not None
    assert f"pip install . && {QUICK_START}" in first[1]
    assert "pip install '.[dev]' && pytest" in readme

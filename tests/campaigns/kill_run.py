"""Kill a whole run at random moments within each stage, go on every time, and hold it against a run in peace.

``python -m tests.campaigns.kill_run`` kills ten times: while it collects, curates, trains and evaluates. In the end the
episodes, the chosen data, the losses, the weights and the report must be those of the run that nobody disturbed, and
what was finished before a kill must not have been touched after it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaigns.kill_resume import COMMAND, check, digest, finish
from tests.campaigns.kill_resume import differences as training_differences
from understudy.formats import read_episodes

TIMEOUT_SECONDS = 300
RUN = "run"
"""The run's folder, relative to where a run is started: paths are part of what an evaluation plays."""

STAGES = ("collect", "curate", "train", "evaluate")
SHARES = {"collect": 3, "curate": 1, "train": 4, "evaluate": 2}
"""How many of ten kills a stage gets."""

CONFIG = """
output_dir: run
collect: {{environment: {{name: math}}, policy: {{name: expert}}, num_episodes: {num_episodes}, concurrency: 8}}
curate: {{only_success: true, deduplicate: true, validation_split: 0.1}}
train:
  model: {{tiny: qwen3, hidden_size: 32, num_layers: 1, vocab_size: 400}}
  train: {{max_steps: {num_steps}, per_device_train_batch_size: 2, learning_rate: 1e-3, save_steps: 2, eval_steps: 5}}
evaluate: {{num_tasks: {num_tasks}, concurrency: 2, policy: {{arguments: {{max_new_tokens: 24, max_batch_size: 2}}}}}}
"""


@dataclass
class Campaign:
    """What happened to the disturbed run: the stage of each kill, and what differs in the end."""

    kills: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def run_campaign(folder: Path, *, kills: dict[str, int], seed: int, **sizes: int) -> Campaign:
    """Run twice, once in peace and once with so many kills in each stage; return what differs in the end."""
    generator = random.Random(seed)
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(**sizes))
    peaceful, disturbed = folder / "peaceful", folder / "disturbed"
    seconds = in_peace(config, peaceful)
    campaign = Campaign()
    finished: dict[str, tuple[int, str]] = {}
    for stage in STAGES:
        for left in range(kills[stage], 0, -1):
            process = start(config, disturbed)
            killed = kill_within(process, disturbed / RUN, stage, generator.uniform(0, 0.7 * seconds[stage] / left))
            if killed is None:
                break
            campaign.kills.append(killed)
            touched = [name for name, facts in finished.items() if facts_of(disturbed / RUN / name) != facts]
            campaign.differences += [f"{name} was touched though it was finished" for name in touched]
            finished = files_of_done_stages(disturbed / RUN)
    finish(start(config, disturbed))
    touched = [name for name, facts in finished.items() if facts_of(disturbed / RUN / name) != facts]
    campaign.differences += [f"{name} was touched though it was finished" for name in touched]
    campaign.differences += differences(peaceful / RUN, disturbed / RUN)
    return campaign


def start(config: Path, folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "run", str(config)],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def in_peace(config: Path, folder: Path) -> dict[str, float]:
    """Run without a kill; return how many seconds each stage took."""
    process = start(config, folder)
    times = [wait_for(process, folder / RUN, stage, "begun") for stage in STAGES]
    finish(process)
    times.append(time.monotonic())
    return {stage: end - begin for stage, begin, end in zip(STAGES, times, times[1:], strict=False)}


def kill_within(process: subprocess.Popen[bytes], run: Path, stage: str, seconds: float) -> str | None:
    """Kill -9 so many seconds after a stage has begun; return the stage that it struck, None if the run was done."""
    before = (run / "stages" / f"{stage}.json").stat().st_mtime_ns if status(run, stage) else 0
    wait_for(process, run, stage, "begun", later_than=before)
    time.sleep(seconds)
    if process.poll() is not None:
        finish(process)
        return None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return next((stage for stage in STAGES if status(run, stage) != "done"), "the end")


def wait_for(process: subprocess.Popen[bytes], run: Path, stage: str, wanted: str, *, later_than: int = 0) -> float:
    """Wait until a stage has begun, or is done; return the time."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while process.poll() is None:
        found = status(run, stage)
        if found == "done" or (found == wanted and (run / "stages" / f"{stage}.json").stat().st_mtime_ns > later_than):
            break
        check(deadline)
    return time.monotonic()


def status(run: Path, stage: str) -> str | None:
    try:
        marker: dict[str, Any] = json.loads((run / "stages" / f"{stage}.json").read_bytes())
    except FileNotFoundError:
        return None
    return str(marker["status"])


def files_of_done_stages(run: Path) -> dict[str, tuple[int, str]]:
    """Return time and hash of every file that a finished stage has left, its marker included."""
    done = [stage for stage in STAGES if status(run, stage) == "done"]
    files = [file for stage in done for file in (run / stage).rglob("*") if file.is_file()]
    files += [run / "stages" / f"{stage}.json" for stage in done]
    return {str(file.relative_to(run)): facts_of(file) for file in files}


def facts_of(file: Path) -> tuple[int, str]:
    return (file.stat().st_mtime_ns if file.exists() else 0, digest(file))


def differences(a: Path, b: Path) -> list[str]:
    """Return in what two finished runs differ."""
    found = [f"{stage} is not done" for stage in STAGES if status(b, stage) != "done"]
    for name in ("collect", "curate/train.jsonl", "curate/validation.jsonl", "evaluate/episodes", "evaluate/baseline"):
        mine, yours = episodes(a / name), episodes(b / name)
        doubled = [id for id, count in Counter(id for id, _ in yours).items() if count > 1]
        found += [f"{name}: {len(doubled)} episodes stand twice"] if doubled else []
        found += [f"{name}: other episodes"] if mine != yours else []
    found += [f"train/{difference}" for difference in training_differences(a / "train", b / "train")]
    reports = [json.loads((run / "evaluate" / "report.json").read_text()) for run in (a, b)]
    found += [f"report: {key}" for key in reports[0] if reports[0][key] != reports[1][key]]
    return found


def episodes(path: Path) -> list[tuple[str, Any]]:
    """Return a file's episodes in their order, without the time at which they were played."""
    return [(episode.id, (episode.task, episode.seed, episode.trajectories)) for episode in read_episodes(str(path))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        campaign = run_campaign(
            Path(folder), kills=SHARES, seed=arguments.seed, num_episodes=4000, num_steps=60, num_tasks=60
        )
    struck = Counter(campaign.kills)
    where = ", ".join(f"{struck[stage]} in {stage}" for stage in (*STAGES, "the end") if struck[stage])
    print(f"seed {arguments.seed}: {len(campaign.kills)} kills: {where}")
    print(f"differences: {', '.join(campaign.differences) or 'none'}")
    return int(bool(campaign.differences))


if __name__ == "__main__":
    sys.exit(main())

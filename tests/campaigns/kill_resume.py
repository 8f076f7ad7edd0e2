"""Kill a training run at random moments, resume it every time, and hold the result against a run that nobody disturbed.

``python -m tests.campaigns.kill_resume`` kills ten times: within a step, while a checkpoint is being written, and while
the run starts. Now and then the newest checkpoint is cut short as well, as a broken disk would. The resumed run must
end with the very same losses, gradient norms, weights and optimiser state, bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "import sys; from understudy.cli.main import main; sys.exit(main())"
TIMEOUT_SECONDS = 300
START_SECONDS = 8.0
NOT_COMPARED = ("time", "seconds", "eval_seconds", "tokens_per_second")

CONFIG = """
model: {{tiny: {architecture}, hidden_size: 32, num_layers: 1, vocab_size: 400}}
data: {{path: {data}, validation_split: 0.3}}
lora: {lora}
train:
  max_steps: {num_steps}
  per_device_train_batch_size: 2
  learning_rate: 1e-3
  warmup_ratio: 0.1
  weight_decay: 0.01
  save_steps: 2
  save_total_limit: 3
  eval_steps: 5
"""

VARIANTS = {
    "full": {"architecture": "qwen3", "lora": "null"},
    "lora with dropout": {"architecture": "llama", "lora": "{lora_r: 4, lora_dropout: 0.2}"},
}


@dataclass
class Campaign:
    """What happened to the disturbed run."""

    kills: list[str] = field(default_factory=list)
    num_corrupted: int = 0
    num_passed_over: int = 0
    differences: list[str] = field(default_factory=list)


def run_campaign(folder: Path, variant: str, *, num_kills: int, num_steps: int, seed: int) -> Campaign:
    """Train twice, once in peace and once with kills; return what differs in the end."""
    generator = random.Random(seed)
    config = folder / "config.yaml"
    data = ROOT / "examples" / "data" / "weather.jsonl"
    config.write_text(CONFIG.format(data=data, num_steps=num_steps, **VARIANTS[variant]))
    peaceful, disturbed = folder / "peaceful", folder / "disturbed"
    undisturbed = start(config, peaceful)
    campaign = Campaign()
    while len(campaign.kills) < num_kills:
        process = start(config, disturbed, "--resume")
        moment = kill_at_random(process, disturbed, generator, len(campaign.kills), num_kills)
        if moment is None:
            break
        campaign.kills.append(moment)
        if generator.random() < 0.3:
            campaign.num_corrupted += cut_newest_checkpoint(disturbed, generator)
    finish(start(config, disturbed, "--resume"))
    finish(undisturbed)
    campaign.num_passed_over = (disturbed / "run.log").read_text().count("passing over")
    campaign.differences = differences(peaceful, disturbed)
    return campaign


def start(config: Path, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "train", str(config), f"output_dir={folder}", *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
    if process.returncode:
        raise RuntimeError(f"training ended with status {process.returncode}:\n{stderr.decode()[-3000:]}")


def kill_at_random(
    process: subprocess.Popen[bytes], folder: Path, generator: random.Random, number: int, num_kills: int
) -> str | None:
    """Kill -9 at a random moment; return what it was doing, None if it was done before."""
    if number % 5 == 4:
        time.sleep(generator.uniform(0.2, START_SECONDS))
    else:
        wait_for_steps(process, folder, generator, share=2 / (num_kills - number + 1))
        while_saving = number % 2 == 1
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while while_saving and process.poll() is None and not list(folder.glob(".checkpoint-*.tmp")):
            check(deadline)
        time.sleep(generator.uniform(0, 0.004 if while_saving else 0.05))
    if process.poll() is not None:
        finish(process)
        return None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    leftovers = [entry.name for entry in folder.glob(".checkpoint-*.tmp")]
    doing = "while starting" if number % 5 == 4 else "within a step"
    return f"with {num_measured(folder)} steps done, {f'while writing {leftovers[0]}' if leftovers else doing}"


def wait_for_steps(process: subprocess.Popen[bytes], folder: Path, generator: random.Random, *, share: float) -> None:
    """Wait until the run has done a random part, at most `share`, of the steps that are left."""
    first, total = num_measured(folder), num_steps_of(process, folder)
    wanted = min(first + generator.randint(1, max(int((total - first) * share), 1)), total - 1)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while process.poll() is None and num_measured(folder) < wanted:
        check(deadline)


def num_steps_of(process: subprocess.Popen[bytes], folder: Path) -> int:
    """Return the number of steps of the whole run, from the resolved config."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (folder / "config.yaml").exists() and process.poll() is None:
        check(deadline)
    text = (folder / "config.yaml").read_text()
    return int(text.split("max_steps: ")[1].split()[0])


def check(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError("the run takes too long")
    time.sleep(0.0005)


def num_measured(folder: Path) -> int:
    """Return the last step in the metrics file, 0 where there is none."""
    try:
        rows = (folder / "metrics.jsonl").read_bytes().split(b"\n")
    except FileNotFoundError:
        return 0
    steps = [json.loads(row)["step"] for row in rows[:-1]]
    return max(steps, default=0)


def cut_newest_checkpoint(folder: Path, generator: random.Random) -> int:
    """Cut a file of the newest checkpoint short; return how many were damaged."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    if not found:
        return 0
    file = generator.choice([file for file in sorted(found[-1].iterdir()) if file.stat().st_size > 1])
    os.truncate(file, generator.randrange(file.stat().st_size))
    return 1


def differences(a: Path, b: Path) -> list[str]:
    """Return in what the results of two runs differ: every metric, and every file of the last checkpoint and final/."""
    found = [f"metrics of row {n}" for n, (x, y) in enumerate(zip(*map(metrics, (a, b)), strict=False)) if x != y]
    if len(metrics(a)) != len(metrics(b)):
        found.append(f"{len(metrics(a))} and {len(metrics(b))} rows of metrics")
    last = max(int(path.name.partition("-")[2]) for path in a.glob("checkpoint-*"))
    for name in (f"checkpoint-{last}", "final"):
        for file in sorted((a / name).iterdir()):
            # These name the run's folder or the time.
            if file.name in ("README.md", "checkpoint.json", "adapter_config.json"):
                continue
            if digest(file) != digest(b / name / file.name):
                found.append(f"{name}/{file.name}")
    return found


def metrics(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_bytes().split(b"\n")[:-1]]
    return [{key: value for key, value in row.items() if key not in NOT_COMPARED} for row in rows]


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "missing"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    failed = False
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            campaign = run_campaign(
                Path(folder), variant, num_kills=arguments.kills, num_steps=arguments.steps, seed=arguments.seed
            )
        print(f"{variant}: {len(campaign.kills)} kills in {time.monotonic() - started:.0f} s")
        for moment in campaign.kills:
            print(f"  killed {moment}")
        print(f"  {campaign.num_corrupted} checkpoints cut short, {campaign.num_passed_over} passed over")
        print(f"  differences: {', '.join(campaign.differences) or 'none, bit for bit'}")
        failed |= bool(campaign.differences)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

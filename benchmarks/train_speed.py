"""Speed and memory of whole optimiser steps against TRL, LLaMA-Factory and plain transformers, in one run.

    python benchmarks/train_speed.py --data ../shared/data --llamafactory-python /path/to/venv/bin/python

Every contender runs in a process of its own with one thread, on the same rows in the same order, and they take steps in
turn, so that a busy machine slows all of them alike. Figures are medians. The model has Qwen3's architecture (hidden
256, 4 layers); the losses of all contenders must agree. LLaMA-Factory pins other versions, so it needs an environment
of its own; without `--llamafactory-python` it is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from train_speed_rows import episode_rows, turn_rows, write_rows

HERE = Path(__file__).resolve().parent
CONTENDERS = ("understudy", "understudy_rows", "plain", "trl_defaults", "trl_best", "trl_one_row", "llamafactory")
# Relative differences of the first step's loss between contenders.
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2}
# Measured CPU time of a contender over ours: (shape, vocabulary or None for any, contender) -> at least.
BARS = {
    ("episode", 32_064, "trl_defaults"): 8.0,
    ("episode", 151_936, "trl_defaults"): 15.0,
    ("episode", None, "trl_best"): 6.0,
    ("episode", None, "llamafactory"): 3.2,
    ("turn", None, "trl_defaults"): 20.0,
    ("episode", None, "understudy_rows"): 1.4,
    ("turn", None, "understudy_rows"): 4.5,
}
MEMORY_BAR = 0.30


@dataclass
class Worker:
    """A contender's process and what it measured."""

    name: str
    process: subprocess.Popen[str]
    steps: list[dict[str, Any]] = field(default_factory=list)
    failed: str | None = None

    def read(self) -> dict[str, Any] | None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.failed = f"ended with exit code {self.process.wait()}"
            return None
        return json.loads(line)

    def step(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        if (measured := self.read()) is not None:
            self.steps.append(measured)

    def of(self, key: str) -> float:
        """Return the median of a figure; the first step, which allocates, counts only for memory."""
        if key == "growth":
            return max(step[key] for step in self.steps)
        return median(step[key] for step in (self.steps[1:] or self.steps))


def start(name: str, settings: dict[str, Any], scratch: Path, python: str) -> Worker:
    own = scratch / name
    own.mkdir(parents=True, exist_ok=True)
    file = own / "settings.json"
    file.write_text(json.dumps(settings | {"contender": name, "scratch": str(own)}), encoding="utf-8")
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "DISABLE_VERSION_CHECK": "1",
    }
    with (own / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [python, str(HERE / "train_speed_worker.py"), str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=HERE,
            env=environment,
        )
    return Worker(name, process)


def run_case(arguments: argparse.Namespace, rows_file: Path, model: Path, case: dict[str, Any]) -> list[Worker]:
    """Run one case and return its workers, those that failed included."""
    settings = case | {
        "rows": str(rows_file),
        "model": str(model),
        "rows_per_step": arguments.rows_per_step,
        "steps": arguments.rounds + 1,
        "max_tokens": arguments.max_tokens,
    }
    scratch = rows_file.parent / f"{case['shape']}-{case['vocab_size']}-{case['precision']}"
    workers = []
    for name in arguments.contenders:
        python = arguments.llamafactory_python if name == "llamafactory" else sys.executable
        if python is None:
            continue
        worker = start(name, settings, scratch, python)
        worker.read()
        workers.append(worker)
    for _ in range(arguments.rounds + 1):
        for worker in workers:
            if worker.failed is None:
                worker.step()
    for worker in workers:
        worker.process.kill()
        if worker.failed is not None:
            print(f"{worker.name} {worker.failed}; its log:", file=sys.stderr)
            print((scratch / worker.name / "log.txt").read_text()[-2000:], file=sys.stderr)
    return workers


def report(case: dict[str, Any], workers: list[Worker], peak_flops: float) -> list[dict[str, Any]]:
    """Print a case's table; return it as records."""
    done = {worker.name: worker for worker in workers if worker.steps}
    ours = done.get("understudy")
    print(f"\none row per {case['shape']}, vocabulary {case['vocab_size']}, {case['precision']}")
    print(f"{'':16}{'CPU s':>9}{'wall s':>9}{'times ours':>11}{'bar':>7}{'peak MiB':>10}{'first loss':>12}{'last':>10}")
    records = []
    for worker in done.values():
        ratio = worker.of("cpu") / ours.of("cpu") if ours else float("nan")
        bar = BARS.get((case["shape"], case["vocab_size"], worker.name), BARS.get((case["shape"], None, worker.name)))
        first, last = worker.steps[0]["loss"], worker.steps[-1]["loss"]
        print(
            f"{worker.name:16}{worker.of('cpu'):9.2f}{worker.of('wall'):9.2f}{ratio:10.2f}x"
            f"{f'{bar:.1f}x' if bar else '':>7}{worker.of('growth'):10.0f}{first:12.6f}{last:10.6f}"
        )
        figures = {key: worker.of(key) for key in ("cpu", "wall", "growth")}
        records.append(case | {"contender": worker.name, "ratio": ratio, "bar": bar, "loss": first} | figures)
    if ours is not None:
        used = median(step["flops"] / step["cpu"] for step in ours.steps)
        print(f"model FLOPs utilisation {used / peak_flops:.0%} of {peak_flops / 1e9:.0f} GFLOP/s measured")
        baseline = done.get("trl_defaults")
        if baseline is not None:
            share = ours.of("growth") / baseline.of("growth")
            print(f"peak growth {share:.0%} of TRL's defaults (bar {MEMORY_BAR:.0%})")
        for worker in done.values():
            difference = abs(worker.steps[0]["loss"] / ours.steps[0]["loss"] - 1)
            # trainers log their losses rounded to a few digits
            if difference > LOSS_TOLERANCE[case["precision"]]:
                print(f"THE LOSS OF {worker.name} DIFFERS BY {difference:.1e}")
    return records


def matmul_peak(precision: str) -> float:
    """Return the FLOP/s of a large matrix product on one thread: the best of several."""
    import torch

    torch.set_num_threads(1)
    size = 2048
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    times = []
    for _ in range(6):
        begin = time.process_time()
        a @ b
        times.append(time.process_time() - begin)
    return 2 * size**3 / min(times)


def save_model(folder: Path, vocab_size: int, tokenizer: Path) -> Path:
    """Write the model that all contenders load, with Qwen3's tokenizer beside it."""
    from transformers import AutoTokenizer

    from understudy.models.tiny import tiny_model

    path = folder / f"model-{vocab_size}"
    model = tiny_model("qwen3", vocab_size=vocab_size, hidden_size=256, num_layers=4, max_position_embeddings=40960)
    model.save_pretrained(path)
    beside = AutoTokenizer.from_pretrained(str(tokenizer))
    beside.pad_token = beside.convert_ids_to_tokens(0)  # its own lies outside of a smaller vocabulary
    beside.save_pretrained(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with corpus/ and tokenizers/")
    parser.add_argument("--shapes", nargs="+", default=["episode", "turn"])
    parser.add_argument("--vocab-sizes", nargs="+", type=int, default=[32_064, 151_936])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--rows-per-step", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3, help="measured steps of each contender, after one to warm up")
    parser.add_argument("--max-tokens", type=int, default=4096, help="our max_tokens_per_batch")
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="shuffle the rows first, as training does")
    parser.add_argument("--llamafactory-python", help="the Python of an environment that has LLaMA-Factory")
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    episodes = episode_rows(arguments.data)
    records = []
    with tempfile.TemporaryDirectory() as scratch:
        for shape, vocab_size, precision in product(arguments.shapes, arguments.vocab_sizes, arguments.precisions):
            case = {"shape": shape, "vocab_size": vocab_size, "precision": precision}
            rows = episodes if shape == "episode" else turn_rows(episodes)
            if arguments.shuffle is not None:
                import numpy as np

                rows = [rows[index] for index in np.random.default_rng(arguments.shuffle).permutation(len(rows))]
            rows_file = Path(scratch) / f"{shape}-{vocab_size}.npz"
            write_rows(rows_file, rows, vocab_size)
            model = save_model(Path(scratch), vocab_size, arguments.data / "tokenizers" / "qwen3")
            workers = run_case(arguments, rows_file, model, case)
            records += report(case, workers, matmul_peak(precision))
            if arguments.json is not None:
                arguments.json.write_text(json.dumps(records, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

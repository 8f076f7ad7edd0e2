"""Speed and memory of whole optimiser steps against TRL, LLaMA-Factory and plain transformers, in one run.

    python benchmarks/train_speed.py --data ../shared/data --llamafactory-python /path/to/venv/bin/python

Every contender takes the same step, of the same rows in the same order, on one thread. They take it in turn, each time
in a process of its own that has all of the memory, so that a busy machine slows all of them alike and what one holds is
not missed by another. Figures are medians over the rounds. The model has Qwen3's architecture (hidden 256, 4 layers);
the losses of all contenders must agree. TRL accumulates the step from batches of its default size. LLaMA-Factory pins
other versions, so it needs an environment of its own; without `--llamafactory-python` it is left out.
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
class Contender:
    """A contender and what it measured, a step a round."""

    name: str
    steps: list[dict[str, Any]] = field(default_factory=list)

    def of(self, key: str) -> float:
        """Return the median of a figure."""
        return median(step[key] for step in self.steps)


def take_step(contender: Contender, settings: dict[str, Any], scratch: Path, python: str) -> None:
    """Let a contender take one step in a new process."""
    own = scratch / contender.name
    own.mkdir(parents=True, exist_ok=True)
    file = own / "settings.json"
    file.write_text(json.dumps(settings | {"contender": contender.name, "scratch": str(own)}), encoding="utf-8")
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "DISABLE_VERSION_CHECK": "1",
    }
    with (own / "log.txt").open("w") as log:
        worker = [python, str(HERE / "train_speed_worker.py"), str(file)]
        done = subprocess.run(
            worker, check=False, stdout=subprocess.PIPE, stderr=log, text=True, cwd=HERE, env=environment
        )
    if done.stdout:
        contender.steps.append(json.loads(done.stdout))
        return
    print(f"{contender.name} ended with exit code {done.returncode}; its log:", file=sys.stderr)
    print((own / "log.txt").read_text()[-2000:], file=sys.stderr)


def run_case(arguments: argparse.Namespace, rows_file: Path, model: Path, case: dict[str, Any]) -> list[Contender]:
    """Run one case and return its contenders, those that failed included."""
    settings = case | {
        "rows": str(rows_file),
        "model": str(model),
        "rows_per_step": arguments.rows_per_step,
        "max_tokens": arguments.max_tokens,
    }
    scratch = rows_file.parent / f"{case['shape']}-{case['vocab_size']}-{case['precision']}"
    contenders = [
        Contender(name)
        for name in arguments.contenders
        if name != "llamafactory" or arguments.llamafactory_python is not None
    ]
    for _ in range(arguments.rounds):
        for contender in contenders:
            python = arguments.llamafactory_python if contender.name == "llamafactory" else sys.executable
            take_step(contender, settings, scratch, python)
    return contenders


def report(case: dict[str, Any], contenders: list[Contender], peak_flops: float) -> list[dict[str, Any]]:
    """Print a case's table; return it as records."""
    done = {contender.name: contender for contender in contenders if contender.steps}
    ours = done.get("understudy")
    print(f"\none row per {case['shape']}, vocabulary {case['vocab_size']}, {case['precision']}")
    print(f"{'':16}{'CPU s':>9}{'wall s':>9}{'times ours':>11}{'bar':>7}{'peak MiB':>10}{'loss':>12}{'batch':>7}")
    records = []
    for contender in done.values():
        ratio = contender.of("cpu") / ours.of("cpu") if ours else float("nan")
        bar = BARS.get(
            (case["shape"], case["vocab_size"], contender.name), BARS.get((case["shape"], None, contender.name))
        )
        loss, batch = contender.of("loss"), contender.steps[0].get("batch_size", "")
        print(
            f"{contender.name:16}{contender.of('cpu'):9.2f}{contender.of('wall'):9.2f}{ratio:10.2f}x"
            f"{f'{bar:.1f}x' if bar else '':>7}{contender.of('growth'):10.0f}{loss:12.6f}{batch:>7}"
        )
        figures = {key: contender.of(key) for key in ("cpu", "wall", "growth")}
        records.append(case | {"contender": contender.name, "ratio": ratio, "bar": bar, "loss": loss} | figures)
    if ours is not None:
        used = median(step["flops"] / step["cpu"] for step in ours.steps)
        print(f"model FLOPs utilisation {used / peak_flops:.0%} of {peak_flops / 1e9:.0f} GFLOP/s measured")
        baseline = done.get("trl_defaults")
        if baseline is not None:
            share = ours.of("growth") / baseline.of("growth")
            print(f"peak growth {share:.0%} of TRL's defaults (bar {MEMORY_BAR:.0%})")
        for contender in done.values():
            difference = abs(contender.of("loss") / ours.of("loss") - 1)
            # trainers log their losses rounded to a few digits
            if difference > LOSS_TOLERANCE[case["precision"]]:
                print(f"THE LOSS OF {contender.name} DIFFERS BY {difference:.1e}")
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
    parser.add_argument(
        "--longest-row", type=int, default=8192, help="leave longer rows out: peers hold all their logits"
    )
    parser.add_argument("--rounds", type=int, default=3, help="steps of each contender")
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
            rows = [row for row in rows if len(row[0]) <= arguments.longest_row]
            if arguments.shuffle is not None:
                import numpy as np

                rows = [rows[index] for index in np.random.default_rng(arguments.shuffle).permutation(len(rows))]
            rows_file = Path(scratch) / f"{shape}-{vocab_size}.npz"
            write_rows(rows_file, rows, vocab_size)
            model = save_model(Path(scratch), vocab_size, arguments.data / "tokenizers" / "qwen3")
            contenders = run_case(arguments, rows_file, model, case)
            records += report(case, contenders, matmul_peak(precision))
            if arguments.json is not None:
                arguments.json.write_text(json.dumps(records, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

"""One optimiser step on a single very long row: does it fit, and how long does it take?

    python benchmarks/long_sequence.py --data ../shared/data --num-tokens 65536

The row is real text: tau-bench's episodes one after the other, as one conversation. It is computed in chunks, of which
only a few keep their activations, so memory grows with the row only by its keys and values.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch
from train_speed_rows import QWEN3_VOCAB_SIZE, episode_rows

from understudy.batching import Planner, Sampler, Source, make_example
from understudy.models.tiny import tiny_model
from understudy.train.adapter import ModelAdapter
from understudy.train.attention import choose_backend
from understudy.train.engines.local import LocalEngine
from understudy.train.runner import TreeRunner
from understudy.types import TokenTreeBuilder

LIMIT_MIB = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--num-tokens", type=int, default=65_536)
    parser.add_argument("--max-tokens", type=int, default=4096, help="max_tokens_per_batch")
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--num-layers", type=int, default=4)
    parser.add_argument("--vocab-size", type=int, default=QWEN3_VOCAB_SIZE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = episode_rows(arguments.data)
    ids = np.concatenate([row for row, _ in rows])[: arguments.num_tokens] % arguments.vocab_size
    supervised = np.concatenate([mask for _, mask in rows])[: arguments.num_tokens]
    builder = TokenTreeBuilder()
    builder.insert(ids)
    example = make_example(builder.build(), {"behavioral_cloning": supervised.astype(float)}, name="one long row")
    assert example is not None
    model = tiny_model(
        "qwen3",
        vocab_size=arguments.vocab_size,
        hidden_size=arguments.hidden_size,
        num_layers=arguments.num_layers,
    ).train()
    adapter = ModelAdapter(model)
    engine = LocalEngine(
        adapter,
        TreeRunner(adapter, choose_backend(adapter.device)),
        coefficients={"behavioral_cloning": 1.0},
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True),
    )
    sampler = Sampler([1], batch_size=1, seed=0)
    plan = Planner([Source("long", [example])], sampler, max_tokens_per_batch=arguments.max_tokens).plan(0)
    cpu, wall = time.process_time(), time.perf_counter()
    stats = engine.forward_backward(plan, engine.global_weight_sums(plan))
    engine.optimizer_step(stats)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{arguments.num_tokens:,} tokens in {len(plan.micro_batches[0].chunks)} chunks: loss {stats.loss:.4f}, "
        f"{cpu:.0f} s CPU, {wall:.0f} s wall, peak memory of the whole process {peak:,.0f} MiB "
        f"(limit {LIMIT_MIB:,}: {'met' if peak < LIMIT_MIB else 'MISSED'})"
    )


if __name__ == "__main__":
    main()

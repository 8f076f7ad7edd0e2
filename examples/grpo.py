"""RL after supervised fine-tuning, and beside it: TRL's GRPO in the environments that episodes were collected in.

    pip install 'understudy[trl]'
    understudy run recipes/quickstart.yaml output_dir=runs/desk
    python examples/grpo.py --model runs/desk/train/final --environment tools --arguments '{"level": 1}'
    python examples/grpo.py --model runs/desk/train/final --environment tools --arguments '{"level": 1}' \\
        --demonstrations runs/desk/curate/train.jsonl --sft-weight 0.1

With demonstrations, their loss joins GRPO's in every step, so that the policy does not forget what it was shown. Their
tokens are those that training would use: each supervised token behind what a server would have computed there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from understudy.api.trl import trl_environment, trl_reward, trl_rows
from understudy.formats import read_episodes
from understudy.rendering import Renderer, load_tokenizer


def demonstrations(path: str, model: str, seed: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield ids [T] and the weight of each [T], row by row, over and over in another order."""
    renderer = Renderer(load_tokenizer(model))
    rows = []
    for episode in read_episodes(path):
        for trajectory in episode.trajectories:
            tree = renderer.render(trajectory).tree
            for index, (_, spans) in enumerate(tree.sequences):
                ids = torch.tensor(tree.sequence_ids(index), dtype=torch.long)
                weights = torch.zeros(len(ids))
                for span in spans:
                    weights[span.start : span.stop] += span.weight
                if weights[1:].any():
                    rows.append((ids, weights))
    if not rows:
        raise SystemExit(f"{path} holds nothing to train on")
    rng = random.Random(seed)
    return itertools.chain.from_iterable(rng.sample(rows, len(rows)) for _ in itertools.count())


class RegularisedGRPO(GRPOTrainer):
    """GRPO whose loss has that of demonstrations added."""

    def __init__(self, *args: Any, rows: Iterator[tuple[torch.Tensor, torch.Tensor]], weight: float, **others: Any):
        super().__init__(*args, **others)
        self._rows, self._weight = rows, weight

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        ids, weights = (part.to(loss.device) for part in next(self._rows))
        logits = model(input_ids=ids[None]).logits[0, :-1].float()
        nll = (cross_entropy(logits, ids[1:], reduction="none") * weights[1:]).sum() / weights[1:].sum()
        self._metrics["train"]["sft_loss"].append(nll.item())
        # TRL divides GRPO's own loss by the accumulated parts, in the same way.
        return loss + self._weight * nll / self.current_gradient_accumulation_steps


def main() -> None:
    parser = argparse.ArgumentParser(description="GRPO in an environment, from a model that was fine-tuned.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--environment", default="tools")
    parser.add_argument("--arguments", type=json.loads, default={}, help="of the environment, as JSON")
    parser.add_argument("--num-tasks", type=int, default=200)
    parser.add_argument("--max-steps", type=int, default=50)
    parser.add_argument("--num-generations", type=int, default=8)
    parser.add_argument("--max-completion-length", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-6)
    parser.add_argument("--demonstrations", help="file of episodes whose loss is added")
    parser.add_argument("--sft-weight", type=float, default=0.1)
    parser.add_argument("--output-dir", default="runs/grpo")
    parser.add_argument("--chat-template", help="file of a template that TRL knows, where it does not know the model's")
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    if options.chat_template:
        tokenizer.chat_template = Path(options.chat_template).read_text(encoding="utf-8")
    rows = trl_rows(options.environment, options.arguments, num=options.num_tasks)
    settings = {
        "model": options.model,
        "reward_funcs": trl_reward,
        "environment_factory": trl_environment(options.environment, options.arguments),
        "train_dataset": Dataset.from_list(rows),
        "processing_class": tokenizer,
        "args": GRPOConfig(
            output_dir=options.output_dir,
            max_steps=options.max_steps,
            num_generations=options.num_generations,
            per_device_train_batch_size=options.num_generations,
            max_completion_length=options.max_completion_length,
            learning_rate=options.learning_rate,
            logging_steps=1,
            report_to="none",
            bf16=torch.cuda.is_available(),
        ),
    }
    if options.demonstrations:
        shown = demonstrations(options.demonstrations, options.model)
        trainer: GRPOTrainer = RegularisedGRPO(rows=shown, weight=options.sft_weight, **settings)
    else:
        trainer = GRPOTrainer(**settings)
    trainer.train()
    trainer.save_model(f"{options.output_dir}/final")


if __name__ == "__main__":
    main()

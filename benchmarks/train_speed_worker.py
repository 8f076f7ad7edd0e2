"""One contender of the training benchmark, in a process of its own.

Started by `train_speed.py` with a settings file. It builds its trainer, takes one optimiser step, and answers with the
loss, the CPU and wall time, and the growth of its peak memory.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from train_speed_rows import read_rows

# What the parent reads; whatever libraries print goes elsewhere.
_ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

LEARNING_RATE = 2e-5
TRL_BATCH_SIZE = 8
"""TRL's default. Its loss is computed in chunks, so the vocabulary does not limit the batch."""
TRL_BATCH_SIZE_WITHOUT_CHECKPOINTING = 2
"""Eight rows would take more than 24 GiB; four fit, and are padded more."""


def answer(**values: Any) -> None:
    _ANSWERS.write(json.dumps(values) + "\n")
    _ANSWERS.flush()


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Clock:
    """Measures a step; memory grows from what is held before it."""

    def __init__(self) -> None:
        self._held = self._cpu = self._wall = self.cpu = self.wall = 0.0

    def start(self) -> None:
        self._held = resident_mib()
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def stop(self) -> None:
        self.cpu, self.wall = time.process_time() - self._cpu, time.perf_counter() - self._wall

    def report(self, loss: float, **more: Any) -> None:
        growth = peak_mib() - self._held
        answer(loss=loss, cpu=self.cpu, wall=self.wall, growth=growth, **more)


def tiny(settings: dict[str, Any]) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32, attn_implementation="sdpa")


def autocast_dtype(settings: dict[str, Any]) -> torch.dtype | None:
    return torch.bfloat16 if settings["precision"] == "bf16" else None


def understudy(settings: dict[str, Any], layout: str) -> None:
    """Our trainer: depth-first trees, or our packed path without trees."""
    from understudy.batching import Planner, Sampler, Source, make_example
    from understudy.train.adapter import ModelAdapter
    from understudy.train.attention import choose_backend
    from understudy.train.engines.local import LocalEngine
    from understudy.train.runner import TreeRunner
    from understudy.types import TokenTreeBuilder

    examples = []
    for number, (ids, supervised) in enumerate(read_rows(settings["rows"])):
        builder = TokenTreeBuilder()
        builder.insert(ids)
        weights = {"behavioral_cloning": supervised.astype(float)}
        examples.append(make_example(builder.build(), weights, name=str(number)))
    model = tiny(settings).train()
    adapter = ModelAdapter(model)
    runner = TreeRunner(
        adapter,
        choose_backend(adapter.device),
        autocast_dtype=autocast_dtype(settings),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    engine = LocalEngine(adapter, runner, coefficients={"behavioral_cloning": 1.0}, optimizer=optimizer)
    sampler = Sampler([len(examples)], batch_size=settings["rows_per_step"], seed=0, shuffle=False)
    longest = max(example.num_tokens for example in examples)
    max_tokens = max(longest, settings["max_tokens"]) if layout == "rows" else settings["max_tokens"]
    planner = Planner([Source("tau", examples)], sampler, layout=layout, max_tokens_per_batch=max_tokens)
    clock = Clock()
    clock.start()
    plan = planner.plan(0)
    stats = engine.forward_backward(plan, engine.global_weight_sums(plan))
    engine.optimizer_step(stats)
    clock.stop()
    clock.report(stats.loss, flops=flops(plan, model.config), tokens=stats.num_tokens)


def flops(plan: Any, config: Any) -> float:
    """Return the floating-point operations that the model needs for a plan: forward, and twice that backward.

    Per token twice the layers' weights, per visible pair four times the width of all heads, per predicting position
    twice the head's weights. Norms, activations and softmax are not counted.
    """
    width = config.num_attention_heads * config.head_dim
    key_width = config.num_key_value_heads * config.head_dim
    weights = config.hidden_size * (2 * width + 2 * key_width + 3 * config.intermediate_size)
    total = 0.0
    for batch in plan.micro_batches:
        forest = batch.forest
        pairs = float((forest.depth.astype(np.int64) + 1).sum())
        per_layer = 2 * weights * forest.num_tokens + 4 * width * pairs
        positions = len(np.unique(forest.targets.position))
        total += config.num_hidden_layers * per_layer + 2 * positions * config.vocab_size * config.hidden_size
    return 3 * total


def plain(settings: dict[str, Any]) -> None:
    """A loop over plain transformers: one row at a time, all logits, torch's cross entropy."""
    rows = read_rows(settings["rows"])
    model = tiny(settings).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    dtype = autocast_dtype(settings)
    clock = Clock()
    clock.start()
    batch = rows[: settings["rows_per_step"]]
    total = sum(int(supervised[1:].sum()) for _, supervised in batch)
    loss_sum = 0.0
    for ids, supervised in batch:
        tokens = torch.from_numpy(ids.astype(np.int64))
        labels = tokens.masked_fill(~torch.from_numpy(supervised), -100)
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            logits = model(input_ids=tokens[None], use_cache=False).logits[0, :-1].float()
            loss = torch.nn.functional.cross_entropy(logits, labels[1:], reduction="sum") / total
        loss.backward()
        loss_sum += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    clock.stop()
    clock.report(loss_sum, batch_size=1)


def timing(callback_class: type, batch_size: int) -> Any:
    """Return a callback that measures a step, and reports it when its loss is logged."""
    clock = Clock()

    class Timing(callback_class):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            clock.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.stop()

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                clock.report(logs["loss"], batch_size=batch_size)

    return Timing()


def trainer_arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a Hugging Face trainer must be told so that it takes the same steps."""
    return {
        "output_dir": settings["scratch"],
        "max_steps": 1,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "bf16": settings["precision"] == "bf16",
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def dataset(settings: dict[str, Any]) -> Any:
    """Return the rows as a data set of ids and labels, -100 where nothing is supervised."""
    from datasets import Dataset

    rows = read_rows(settings["rows"])
    return Dataset.from_dict(
        {
            "input_ids": [ids.tolist() for ids, _ in rows],
            "attention_mask": [[1] * len(ids) for ids, _ in rows],
            "labels": [np.where(supervised, ids, -100).tolist() for ids, supervised in rows],
        }
    )


def trl(settings: dict[str, Any], *, batch_size: int, **overrides: Any) -> None:
    """TRL's SFTTrainer. The labels are those of `assistant_only_loss`; nothing is cut off."""
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    batch_size = min(batch_size, settings["rows_per_step"])
    config = SFTConfig(
        **trainer_arguments(settings),
        train_sampling_strategy="sequential",
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=settings["rows_per_step"] // batch_size,
        max_length=None,
        **overrides,
    )
    trainer = SFTTrainer(
        model=tiny(settings),
        args=config,
        train_dataset=dataset(settings),
        processing_class=AutoTokenizer.from_pretrained(settings["model"]),
        callbacks=[timing(TrainerCallback, batch_size)],
    )
    trainer.train()


def llamafactory(settings: dict[str, Any]) -> None:
    """LLaMA-Factory at its best here: no gradient checkpointing, one row at a time, so that nothing is padded."""
    folder = Path(settings["scratch"]) / "tokenized"
    if not folder.exists():
        from datasets import DatasetDict

        DatasetDict({"train": dataset(settings)}).save_to_disk(str(folder))
    from transformers import TrainerCallback

    # It imports torchaudio whatever it trains, whose wheels fit no CPU build of torch; nothing here uses it.
    if importlib.util.find_spec("torchaudio") is None:
        sys.modules["torchaudio"] = ModuleType("torchaudio")
        sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)
    from llamafactory.train.tuner import run_exp

    arguments = trainer_arguments(settings) | {
        "model_name_or_path": settings["model"],
        "template": "qwen3",
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "dataset": "tau",  # must be named; what is tokenised already is read instead
        "tokenized_path": str(folder),
        "disable_shuffling": True,
        "disable_gradient_checkpointing": True,
        "flash_attn": "sdpa",
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": settings["rows_per_step"],
        "cutoff_len": 100_000,
        "overwrite_output_dir": True,
    }
    arguments["report_to"] = ["none"]
    run_exp(arguments, callbacks=[timing(TrainerCallback, 1)])


CONTENDERS: dict[str, Callable[[dict[str, Any]], None]] = {
    "understudy": lambda settings: understudy(settings, "depth_first"),
    "understudy_rows": lambda settings: understudy(settings, "rows"),
    "plain": plain,
    "trl_defaults": lambda settings: trl(settings, batch_size=TRL_BATCH_SIZE),
    "trl_best": lambda settings: trl(
        settings, batch_size=TRL_BATCH_SIZE_WITHOUT_CHECKPOINTING, gradient_checkpointing=False
    ),
    "trl_one_row": lambda settings: trl(settings, batch_size=1, gradient_checkpointing=False),
    "llamafactory": llamafactory,
}


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if (score := Path("/proc/self/oom_score_adj")).exists():
        score.write_text("1000")  # where memory runs out, this process ends and no other
    torch.set_num_threads(1)
    CONTENDERS[settings["contender"]](settings)


if __name__ == "__main__":
    main()

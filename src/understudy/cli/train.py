"""Train a model as a config says.

Reads episodes, renders them as the model's server would, and trains on exactly the tokens that the objective names. The
run's folder gets checkpoints, metrics.jsonl, loss.png, config.yaml, provenance.json, and the trained model in final/,
which transformers, PEFT and vLLM load.

Every key of the config can be given on the command line. For several devices start it with a launcher:
torchrun --nproc-per-node 2 --no-python understudy train …, or accelerate launch --no_python understudy train …
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .configuring import names_file
from .console import messages, results, show_log
from .parser import Parser

if TYPE_CHECKING:
    from rich.console import Console

    from understudy.train.estimate import DryRun
    from understudy.train.run import TrainResult

EPILOG = """
examples:
  understudy train recipes/tau_bench.yaml data.path=episodes.jsonl
  understudy train my.yaml train.learning_rate=1e-5 train.num_train_epochs=2 output_dir=runs/second
  understudy train my.yaml --dry-run
  understudy train my.yaml --resume

The first Ctrl-C (or SIGTERM) saves a checkpoint and ends; --resume goes on as if nothing had happened. So it does after
a kill: a checkpoint is whole or not there. All keys: understudy train --keys, or docs/config.md.

exit status: 0 trained; 1 training failed; 2 the command or the config is wrong; 130 or 143 interrupted by Ctrl-C or
SIGTERM, with a checkpoint saved
"""

_SIGNAL_EXIT = 128  # a shell's convention for a program that a signal ended


def add_arguments(parser: Parser) -> None:
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="YAML file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="a key of the config, by its dotted name")
    parser.add_argument("--resume", action="store_true", help="go on from the last good checkpoint, if there is one")
    parser.add_argument("--overwrite", action="store_true", help="delete the run that output_dir holds")
    parser.add_argument(
        "--dry-run", action="store_true", help="read and render all data, plan, estimate the memory; no training"
    )
    parser.add_argument("--keys", action="store_true", help="print every key of the config with its meaning, and end")


def run(args: argparse.Namespace) -> int:
    from understudy.config import config_help
    from understudy.train.config import TrainConfig

    if args.keys:
        print(config_help(TrainConfig), end="")
        return 0
    if args.config is None or not names_file(args.config):
        from understudy.errors import ConfigError

        raise ConfigError("name the config file first, then its keys: understudy train CONFIG KEY=VALUE …")
    from understudy import api
    from understudy.train.launch import rank

    overrides = [*args.overrides, *(["resume=auto"] if args.resume else [])]
    if rank() == 0:
        show_log()
    if args.dry_run:
        found = api.dry_runs(args.config, overrides=overrides)
        if rank() == 0:
            show_dry_runs(results(), found)
        return 0
    result = api.train(args.config, overrides=overrides, overwrite=args.overwrite)
    if rank() == 0:
        _show_result(messages(), result)
    return _SIGNAL_EXIT + result.signal if result.signal is not None else 0


def _show_result(console: Console, result: TrainResult) -> None:
    for name, one in (result.policies or {"": result}).items():
        if one.signal is not None:
            text = (
                f"stopped by {one.signal.name} after step {one.step} of {one.num_steps}; a checkpoint is saved. Go on: "
                "the same command with --resume"
            )
        else:
            early = ", early: the validation loss no longer fell" if one.is_early else ""
            text = f"trained {one.step} of {one.num_steps} steps{early}; the model is in {one.final}"
            if one.best_loss is not None:
                text += f"; lowest validation loss {one.best_loss:.4f} after step {one.best_step}"
        console.print(f"{name}: {text}" if name else text, markup=False, soft_wrap=True)


def show_dry_runs(console: Console, found: Mapping[str, DryRun]) -> None:
    """Show what a run would do, policy by policy where it trains several."""
    for name, dry in found.items():
        if name:
            console.print(f"policy {name}", style="bold", markup=False)
        show_dry_run(console, dry)


def show_dry_run(console: Console, dry: DryRun) -> None:
    """Show what a run would do."""
    from rich import box
    from rich.table import Table

    data = Table(title="data", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    columns = ("source", "episodes", "to train on", "held out", "turns", "refused", "too long", "cut", "trained tokens")
    for column in columns:
        data.add_column(column, justify="left" if column == "source" else "right")
    for r in dry.data.reports:
        counts = (r.num_episodes, r.num_examples, r.num_held_out, r.num_turns, r.num_refused)
        lengths = (r.lengths.num_dropped, r.lengths.num_cut, r.num_targets)
        data.add_row(r.name, *(f"{count:,}" for count in (*counts, *lengths)))
    console.print(data)
    plans, memory = dry.plans, dry.memory
    facts = {
        "model": f"{dry.model}: {dry.num_parameters:,} parameters, {dry.num_trained:,} trained",
        "objective": ", ".join(dry.data.train[0].examples[0].term_names),
        "steps": f"{plans.num_steps:,} of {plans.examples_per_step:,} trajectories; {plans.steps_per_epoch:,} an epoch",
        "tokens of a step": f"{plans.tokens:,.0f} computed for {plans.row_tokens:,.0f} of separate rows: "
        f"{plans.tree_saving:.0%} saved by trees (median of the first {plans.num_planned} steps)",
        "forward passes": f"{plans.forward_passes:,.0f} a step on each device, of up to "
        f"{dry.config.train.max_tokens_per_batch:,} tokens",
        "longest row": f"{plans.longest_path:,} tokens",
        "memory": f"about {_gib(memory.total)} on a device: weights {_gib(memory.weights)}, gradients "
        f"{_gib(memory.gradients)}, optimiser {_gib(memory.optimizer)}, activations roughly {_gib(memory.activations)}"
        + (f", weights and gradients put together for a pass {_gib(memory.gathered)}" if memory.gathered else ""),
        "fingerprints": f"data {dry.data.fingerprint}, rendering {dry.rendering_fingerprint}",
    }
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in facts.items():
        table.add_row(name, value)
    console.print(table)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:,.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:,.0f} MiB"

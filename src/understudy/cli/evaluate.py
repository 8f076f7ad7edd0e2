"""Evaluate a policy: let it play held-out tasks, and say how well it did and how sure that is.

Success, reward and pass@k with intervals; a comparison on the same tasks with a baseline (another policy, or an earlier
evaluation); the loss and perplexity of a model on rows it has not seen, and how much of what the environment answers
there it predicts exactly. output_dir gets report.html (with the episodes side by side), report.json, and the episodes.

An episode that a fault ended is counted apart, is never the agent's failure, and is played again by the next start.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .configuring import COMPONENTS, add_config_arguments, read_config
from .console import messages, results, show_log
from .interrupting import saying_how_to_go_on
from .parser import Parser

if TYPE_CHECKING:
    from rich.console import Console

    from understudy.evaluate import EvaluateResult

EPILOG = f"""
examples:
  understudy evaluate environment.name=math policy.name=local policy.arguments.model=runs/first \\
      baseline.name=local baseline.arguments.model=runs/first/base num_tasks=200 output_dir=eval/first
  understudy evaluate my.yaml samples_per_task=8 policy.arguments.temperature=1.0 baseline=eval/first
  understudy evaluate loss.model=runs/first loss.data_path=held_out.jsonl output_dir=eval/loss
  understudy evaluate world_model.model=runs/world world_model.data_path=held_out.jsonl output_dir=eval/world

{COMPONENTS}

exit status: 0 evaluated; 1 it stopped, or episodes ended by a fault; 2 the command or a config is wrong;
130 interrupted (Ctrl-C or SIGTERM): the same command goes on
"""


def add_arguments(parser: Parser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="delete what output_dir holds, and start")


def run(args: argparse.Namespace) -> int:
    from understudy.evaluate import EvaluateConfig, evaluate

    config = read_config(args, EvaluateConfig)
    if config is None:
        return 0
    show_log()
    with saying_how_to_go_on(config.output_dir):
        result = evaluate(config, overwrite=args.overwrite, console=messages())
    show_result(results(), result)
    messages().print(f"the report is in {result.html_path}", markup=False, soft_wrap=True)
    return 1 if result.num_errors else 0


def show_result(console: Console, result: EvaluateResult) -> None:
    """Print what an evaluation found as tables."""
    if result.metrics is not None:
        _show_scores(console, result)
    for difference in result.differences:
        found = difference.comparison
        text = (
            f"{difference.name}: {difference.value} against the baseline · {difference.evidence}; of "
            f"{found.num_tasks:,} tasks {found.num_better:,} better, {found.num_worse:,} worse"
        )
        console.print(text, markup=False, soft_wrap=True)
    if result.losses:
        _show_losses(console, result)
    if result.predictions:
        _show_predictions(console, result)
    if result.num_errors:
        text = f"{result.num_errors:,} episodes ended by a fault and are not counted; the same command plays them again"
        messages().print(text, style="yellow", markup=False, soft_wrap=True)


def _show_scores(console: Console, result: EvaluateResult) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from understudy.evaluate.report import figure_rows

    sides = [(result.baseline_label, result.baseline), (result.label, result.metrics)]
    played = [(label or "", scores) for label, scores in sides if scores is not None]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for label, _ in played:
        table.add_column(Text(label), justify="right")
    for name, texts in figure_rows([scores for _, scores in played]):
        table.add_row(name, *(Text(text or "-") for text in texts))
    console.print(table)


def _show_losses(console: Console, result: EvaluateResult) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    first = result.losses[0]
    title = f"held-out loss over {first.num_tokens:,} tokens of {first.num_episodes:,} episodes"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("model", "term", "loss", "perplexity", "tokens right"):
        table.add_column(column, justify="left" if column in ("model", "term") else "right")
    for loss in result.losses:
        for name, term in loss.terms.items():
            row = (name, f"{term.loss:.4f}", f"{term.perplexity:.4g}", f"{term.accuracy:.1%}")
            table.add_row(Text(loss.label), *row)
    console.print(table)


def _show_predictions(console: Console, result: EvaluateResult) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from understudy.evaluate.report import percent, shown_estimate

    first = result.predictions[0]
    title = f"world model over {first.num_observations:,} observations of {first.num_episodes:,} episodes"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("model", "observation", "predicted exactly", "loss", "tokens right"):
        table.add_column(column, justify="left" if column in ("model", "observation") else "right")
    for found in result.predictions:
        exact = shown_estimate(found.exact)
        table.add_row(Text(found.label), "all", exact, f"{found.loss.loss:.4f}", percent(found.loss.accuracy))
        for kind, tally in found.by_kind.items():
            if len(found.by_kind) > 1:
                table.add_row("", Text(kind), f"{percent(tally.rate)} of {tally.num:,}", "", "")
    console.print(table)

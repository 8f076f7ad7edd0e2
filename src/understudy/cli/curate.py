"""Choose what to train on.

Reads episodes, applies rules (only successes, least reward, lengths, duplicates, best of n, at most so many), and
writes train.jsonl, with validation.jsonl where tasks are held out. Every rule says how many episodes it kept and why it
left the others out; the same stands in curation_stats.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .configuring import add_config_arguments, read_config
from .console import messages, results
from .parser import Parser

if TYPE_CHECKING:
    from understudy.curate import CurateResult
    from understudy.types import Episode

EPILOG = """
examples:
  understudy curate path=data/math output_dir=data/math_train only_success=true validation_split=0.1
  understudy curate path=episodes.jsonl output_dir=best best_of_n=1 min_reward_threshold=0.5 deduplicate=true
  understudy curate rules.yaml max_trajectories=1000

exit status: 0 written; 1 a row could not be read; 2 the command or a config is wrong, or nothing is left
"""


def add_arguments(parser: Parser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier curation")


def run(args: argparse.Namespace) -> int:
    from understudy.curate import CurateConfig, curate

    config = read_config(args, CurateConfig)
    if config is None:
        return 0
    _show(curate(config, overwrite=args.overwrite, watch=_with_progress))
    return 0


def _with_progress(episodes: Iterable[Episode], label: str) -> Iterator[Episode]:
    from understudy.runs import Progress

    with Progress(label, unit="episodes", console=messages()) as progress:
        for episode in episodes:
            yield episode
            progress.advance()


def _show(result: CurateResult) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title=f"{result.num_read:,} episodes read", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("rule")
    table.add_column("before", justify="right")
    table.add_column("kept", justify="right")
    table.add_column("left out, and why")
    has_agents = any(rule.agents for rule in result.rules)
    if has_agents:
        table.add_column("trajectories kept")
    for rule in result.rules:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in rule.reasons.items())
        row = [rule.rule, f"{rule.num_before:,}", f"{rule.num_kept:,}", reasons or "-"]
        if has_agents:
            row.append(", ".join(f"{agent} {count.num_kept:,}" for agent, count in rule.agents.items()) or "-")
        table.add_row(*row)
    results().print(table)
    if result.num_augmented:
        text = f"{result.num_augmented:,} changed copies are trained on beside {result.num_train:,} episodes"
        messages().print(text, markup=False, soft_wrap=True)
    if result.num_relabelled:
        text = f"{result.num_relabelled:,} of these episodes failed and are successes at the tasks that they did solve"
        messages().print(text, markup=False, soft_wrap=True)
    text = f"wrote {result.num_train:,} episodes to {result.train}"
    if result.validation is not None:
        text += f" and {result.num_validation:,} to {result.validation}"
    messages().print(text, markup=False, soft_wrap=True)

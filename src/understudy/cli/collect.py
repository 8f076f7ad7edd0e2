"""Let agents play, and write their episodes down.

Plays the tasks of an environment with a policy (an expert, an endpoint, a local model, …), many at once. Episodes go
into the output folder as they are finished. Killed or interrupted, the same command goes on: nothing is lost, nothing
is played twice. In the end there are episodes_{time}.jsonl and episodes_{time}_stats.json, beside config and
provenance.

What fails on the way is tried again; an episode that a fault ended all the same is counted apart, is never the agent's
failure, and is played again by the next start.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .configuring import COMPONENTS, add_config_arguments, read_config
from .console import messages, show_log
from .interrupting import saying_how_to_go_on
from .parser import Parser

if TYPE_CHECKING:
    from understudy.collect import CollectConfig, CollectResult

EPILOG = f"""
examples:
  understudy collect environment.name=math policy.name=expert num_episodes=500 output_dir=data/math
  understudy collect my.yaml samples_per_task=4 policy.arguments.temperature=1.0
  understudy collect my.yaml policy.name=endpoint policy.arguments.model=Qwen/Qwen3-8B \\
      policy.arguments.base_url=http://localhost:8000/v1

{COMPONENTS}

exit status: 0 all episodes are there; 1 it stopped, or some ended by a fault; 2 the command or a config is wrong;
130 interrupted (Ctrl-C or SIGTERM): the same command goes on
"""


def add_arguments(parser: Parser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="delete what output_dir holds, and start")


def run(args: argparse.Namespace) -> int:
    from understudy.collect import CollectConfig

    config = read_config(args, CollectConfig)
    return 0 if config is None else run_collection(config, overwrite=args.overwrite)


def run_collection(config: CollectConfig, *, overwrite: bool) -> int:
    """Collect, show what came of it, and return the exit status."""
    from understudy.collect import collect
    from understudy.curate import EpisodeStatistics

    show_log()
    with saying_how_to_go_on(config.output_dir):
        result = collect(config, statistics=EpisodeStatistics, overwrite=overwrite, console=messages())
    _show(result, elsewhere="were there already" if config.store is None else "by others, or before")
    return 1 if result.num_errors else 0


def _show(result: CollectResult, *, elsewhere: str) -> None:
    console = messages()
    there = result.num_episodes - result.num_played
    text = f"played {result.num_played:,} episodes" + (f" ({there:,} {elsewhere})" if there else "")
    if result.num_known:
        share = result.num_successes / result.num_known
        text += f"; success {result.num_successes:,} of {result.num_known:,} ({share:.1%})"
    console.print(f"{text}; {result.num_episodes:,} are in {result.path}", markup=False, soft_wrap=True)
    if result.num_errors:
        text = f"{result.num_errors:,} of them ended by a fault, see {result.stats_path}; the same command "
        console.print(text + "plays them again", style="yellow", markup=False, soft_wrap=True)

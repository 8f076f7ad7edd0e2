"""Let a policy play in a dream: a trained world model answers in the environment's place.

The config is that of a collection (understudy collect) and says in world_model who dreams. Tasks, tools and the first
observation come from the environment; every later observation is written by the world model. A dream is over where the
environment reads that off the text, where a pattern of ends is found, or after max_steps actions. There are no rewards,
and success is unknown: nobody knows what an action would really have come to.

Killed or interrupted, the same command goes on. The episodes are written down as those of any collection.
"""

from __future__ import annotations

import argparse

from . import collect
from .configuring import read_config
from .parser import Parser

EPILOG = """
examples:
  understudy dream environment.name=grid policy.name=local policy.arguments.model=runs/grid \\
      world_model.model=runs/grid num_episodes=100 output_dir=dreams/grid
  understudy dream mine.yaml world_model.model=runs/world 'ends.answered="^assistant: ."' output_dir=dreams/mine

exit status: 0 all episodes are there; 1 it stopped, or some ended by a fault; 2 the command or a config is wrong;
130 interrupted (Ctrl-C or SIGTERM): the same command goes on
"""


def add_arguments(parser: Parser) -> None:
    collect.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from understudy.collect.dream import DreamConfig

    config = read_config(args, DreamConfig)
    return 0 if config is None else collect.run_collection(config.collection(), overwrite=args.overwrite)

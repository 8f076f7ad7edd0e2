"""Record what other programs' agents do.

Listens as an OpenAI-compatible endpoint and passes calls on to the model's server. Point the program at it, by
OPENAI_BASE_URL or its own setting; what it asks and what it is answered becomes episodes. Calls to
…/episodes/NAME/v1 are of the episode of that name; calls to …/v1 find theirs by the conversation that they go on with.
A POST of {"reward": …, "success": …, "task": …} to …/episodes/NAME/v1/result says how one ended. Ctrl-C ends the
recording and writes the episodes.
"""

from __future__ import annotations

import argparse

from .configuring import add_config_arguments, read_config
from .console import messages
from .interrupting import raising_at_sigterm
from .parser import Parser

EPILOG = """
examples:
  understudy record output_dir=data/harness base_url=http://localhost:8000/v1 token_ids=vllm
  understudy record output_dir=data/harness model=gpt-4o port=8100 environment=swe

exit status: 0 recorded, also when interrupted; 2 the command or a config is wrong, or the port is taken
"""


def add_arguments(parser: Parser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="delete what output_dir holds, and start")


def run(args: argparse.Namespace) -> int:
    from understudy.collect.gateway_config import GatewayConfig

    config = read_config(args, GatewayConfig)
    if config is None:
        return 0
    from understudy.collect.recording import record
    from understudy.curate import EpisodeStatistics

    console = messages()

    def on_ready(base_url: str) -> None:
        text = (
            f"listening at {base_url} (or {base_url.removesuffix('/v1')}/episodes/NAME/v1); Ctrl-C ends the recording"
        )
        console.print(text, markup=False, soft_wrap=True)

    with raising_at_sigterm():
        result = record(config, on_ready, statistics=EpisodeStatistics, overwrite=args.overwrite)
    failed = f", {result.num_failed:,} of them failed" if result.num_failed else ""
    place = f"; {result.num_episodes:,} episodes are in {result.path}" if result.path is not None else "; no episodes"
    console.print(f"{result.num_calls:,} calls{failed}{place}", markup=False, soft_wrap=True)
    return 0

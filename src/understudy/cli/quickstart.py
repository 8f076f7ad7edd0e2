"""See an agent go from failing to succeeding: a few minutes on a laptop, offline.

Makes a tiny model and a tokenizer, collects from the expert of an environment with tools, curates, trains, and lets the
model play tasks that it has not seen, before and after. It is `understudy run` with a config that comes with the
package, recipes/quickstart.yaml; interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .console import messages
from .parser import Parser

EPILOG = """
examples:
  understudy quickstart
  understudy quickstart --output-dir /tmp/first

exit status: 0 done; 1 a stage failed; 2 the folder holds something else; 130 or 143 interrupted by Ctrl-C or SIGTERM
"""

CONFIG = Path(__file__).with_name("quickstart.yaml")

NEXT = """
Look next at the report, which shows episodes before and after side by side; at what was trained, token by token:
  understudy tokens {folder}/curate/train.jsonl --model {folder}/train/final --limit 1
at the tasks, with you as the agent:
  understudy play {environment}
and at the same with something changed, such as fewer episodes of the expert:
  understudy run {folder}/config.yaml output_dir=runs/second collect.num_episodes=200
"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--output-dir", default="runs/quickstart", metavar="DIR", help="folder of the run (default: runs/quickstart)"
    )
    parser.add_argument("--overwrite", action="store_true", help="delete what the folder holds, and start")


def run(args: argparse.Namespace) -> int:
    from understudy.api.pipeline import read_run_config
    from understudy.config import read_document

    from .run import run_pipeline

    config = read_run_config(read_document(CONFIG).value | {"output_dir": args.output_dir})
    status = run_pipeline(config, overwrite=args.overwrite)
    if status == 0 and config.collect is not None:
        environment = config.collect.environment
        words = [environment.name, *(f"{key}={value}" for key, value in environment.arguments.items())]
        text = NEXT.format(folder=args.output_dir, environment=" ".join(words))
        messages().print(text, end="", markup=False, soft_wrap=True)
    return status

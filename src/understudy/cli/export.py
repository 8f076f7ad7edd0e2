"""Write a trained model as a folder that servers load: an adapter is merged into its base model.

Reads a run's folder (its final/), a checkpoint, a model or an adapter. Nothing of the training state is taken along.
"""

from __future__ import annotations

import argparse

from .console import messages
from .parser import Parser, one_of

EPILOG = """
examples:
  understudy export runs/tau merged/
  understudy export runs/tau/checkpoint-500 merged/ --dtype bfloat16
  understudy export adapter/ merged/ --base Qwen/Qwen3-8B

exit status: 0 written; 1 it failed; 2 there is no model, or DST exists already
"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("src", metavar="SRC", help="run folder, checkpoint, model or adapter")
    parser.add_argument("dst", metavar="DST", help="folder to write; must not exist yet")
    parser.add_argument("--base", metavar="M", help="base model of the adapter (default: the one that it names)")
    parser.add_argument(
        "--dtype",
        type=one_of("auto", "float32", "bfloat16", "float16"),
        default="auto",
        metavar="D",
        help="float32, bfloat16 or float16 (default: as it is)",
    )
    parser.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with the model")


def run(args: argparse.Namespace) -> int:
    from understudy.models.export import export_model

    done = export_model(args.src, args.dst, base=args.base, dtype=args.dtype, trust_remote_code=args.trust_remote_code)
    messages().print(f"{done}; it is in {args.dst}", markup=False, soft_wrap=True)
    return 0

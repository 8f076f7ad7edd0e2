"""Run stages in one folder: collect, curate, train, evaluate.

The config has a section for each stage with the keys of its own command; a stage without a section is left out. Paths,
the environment of the evaluation and the model that is evaluated follow from the stages before; --dry-run says them,
and checks every section. Each stage writes to the folder of its name within output_dir.

A run that was killed or interrupted goes on at its stage by the same command. What is done is not done again; a stage
whose config or files have changed since is refused, unless --from names it.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from .configuring import add_config_arguments, read_config
from .console import messages, results, show_log
from .parser import Parser, one_of

if TYPE_CHECKING:
    from understudy.api.pipeline import RunConfig, RunResult

EPILOG = """
examples:
  understudy run recipes/quickstart.yaml
  understudy run my.yaml --dry-run
  understudy run my.yaml train.train.learning_rate=1e-3 --from train
  understudy run my.yaml evaluate=null

exit status: 0 all stages are done; 1 a stage failed, or episodes of evaluate ended by a fault; 2 the command or a
config is wrong; 130 or 143 interrupted by Ctrl-C or SIGTERM: the same command goes on
"""

SHOWN = {"train": {"loss": "loss.png", "model": "final"}, "evaluate": {"report": "report.html"}}
"""Stage -> what of its folder a user wants to see, by what it is called."""

_SIGNAL_EXIT = 128  # a shell's convention for a program that a signal ended


def add_arguments(parser: Parser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="check every stage and say what would be done; no more")
    parser.add_argument(
        "--from",
        dest="start_from",
        type=one_of("collect", "curate", "train", "evaluate"),
        metavar="STAGE",
        help="delete what this stage and those after it have left, and do them anew",
    )
    parser.add_argument("--overwrite", action="store_true", help="delete what output_dir holds, and start")


def run(args: argparse.Namespace) -> int:
    from understudy.api.pipeline import RunConfig

    config = read_config(args, RunConfig)
    if config is None:
        return 0
    if args.dry_run:
        _dry_run(config, overwrite=args.overwrite, start_from=args.start_from)
        return 0
    return run_pipeline(config, overwrite=args.overwrite, start_from=args.start_from)


def run_pipeline(config: RunConfig, *, overwrite: bool = False, start_from: str | None = None) -> int:
    """Run a pipeline, show what came of it, and return the exit status."""
    from understudy.api.pipeline import StageInterrupted
    from understudy.api.pipeline import run as run_stages

    show_log()
    try:
        with _raising_at_sigterm():
            result = run_stages(config, overwrite=overwrite, start_from=start_from, console=messages())
    except KeyboardInterrupt as error:
        received = error.signal if isinstance(error, StageInterrupted) else signal.SIGINT
        text = f"interrupted; what is done is in {config.output_dir}, and the same command goes on"
        messages().print(text, markup=False, soft_wrap=True)
        return _SIGNAL_EXIT + received
    _show_result(result)
    return 0 if all(outcome.is_complete for outcome in result.stages) else 1


@contextlib.contextmanager
def _raising_at_sigterm() -> Iterator[None]:
    """Let a scheduler's stop be an interrupt, as Ctrl-C is."""
    from understudy.api.pipeline import StageInterrupted

    def stop(number: int, frame: Any) -> NoReturn:
        raise StageInterrupted(signal.Signals(number))

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show_result(result: RunResult) -> None:
    """Show the evaluation, and where everything is."""
    from .evaluate import show_result

    console = results()
    evaluation = result.outcome("evaluate")
    if evaluation is not None and evaluation.result is not None:
        show_result(console, evaluation.result)
    for outcome in result.stages:
        folder = outcome.stage.folder
        for name, file in SHOWN.get(outcome.stage.name, {}).items():
            found = [folder / file] if (folder / file).exists() else sorted(folder.glob(f"*/{file}"))  # of each policy
            for path in found:
                console.print(f"{name:7} {path}", markup=False, soft_wrap=True)


def _dry_run(config: RunConfig, *, overwrite: bool, start_from: str | None) -> None:
    """Check every stage, show how far each is and what follows for it; train's own dry run where its data is there."""
    from rich import box
    from rich.table import Table

    from understudy.api import dry_runs
    from understudy.api.pipeline import plan

    from .train import show_dry_runs

    planned = plan(config, start_from=start_from, overwrite=overwrite)
    table = Table(title=config.output_dir, title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("stage", "state", "what follows from the stages before"):
        table.add_column(column)
    for one in planned:
        following = [f"{key}={value}" for key, value in config.following(one.stage.name).items()]
        table.add_row(one.stage.name, one.state, "\n".join(following) or "-")
    results().print(table)
    earlier = [one.state for one in planned if one.stage.name in ("collect", "curate")]
    if config.train is not None and all(state == "done" for state in earlier):
        show_dry_runs(results(), dry_runs(config.train))

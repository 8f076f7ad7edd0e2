"""Run stages in one folder: collect, curate, train, evaluate.

The config has a section for each stage with the keys of its own command; a stage without a section is left out. Paths,
the environment of the evaluation and the model that is evaluated follow from the stages before; --dry-run says them,
and checks every section. Each stage writes to the folder of its name within output_dir.

With `iterations: N` all of this is repeated, each time with the model of the time before (online SFT, expert iteration,
DAgger), each in a folder iteration_01, iteration_02, …; `final` is the best model, and held_out its evaluation.

A run that was killed or interrupted goes on at its stage by the same command. What is done is not done again; a stage
whose config or files have changed since is refused, unless --from names it.
"""

from __future__ import annotations

import argparse
import signal
from typing import TYPE_CHECKING, Any, NoReturn

from understudy.errors import ConfigError

from .configuring import add_config_arguments, read_config
from .console import messages, results, show_log
from .interrupting import raising_at_sigterm
from .parser import Parser, one_of

if TYPE_CHECKING:
    from understudy.api.pipeline import LoopResult, PlannedStage, RunConfig, RunResult

EPILOG = """
examples:
  understudy run recipes/quickstart.yaml
  understudy run my.yaml --dry-run
  understudy run my.yaml train.train.learning_rate=1e-3 --from train
  understudy run my.yaml evaluate=null
  understudy run recipes/online_sft.yaml train.model.path=runs/first iterations=5
  understudy run recipes/dagger.yaml --from-iteration 2 --from train

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
    parser.add_argument(
        "--from-iteration",
        dest="start_iteration",
        type=int,
        metavar="N",
        help="delete iteration N (with --from: from that stage on) and those after it, and do them anew",
    )
    parser.add_argument("--overwrite", action="store_true", help="delete what output_dir holds, and start")


def run(args: argparse.Namespace) -> int:
    from understudy.api.pipeline import RunConfig

    config = read_config(args, RunConfig)
    if config is None:
        return 0
    how = {"overwrite": args.overwrite, "start_from": args.start_from, "start_iteration": args.start_iteration}
    if args.dry_run:
        _dry_run(config, **how)
        return 0
    return run_pipeline(config, **how)


def run_pipeline(config: RunConfig, **how: Any) -> int:
    """Run a pipeline, show what came of it, and return the exit status.

    Args:
        how: as `understudy.run` takes it: overwrite, start_from, start_iteration.
    """
    from understudy.api.pipeline import LoopResult, StageInterrupted
    from understudy.api.pipeline import run as run_config

    show_log()
    try:
        with raising_at_sigterm(_stop_stage):
            result = run_config(config, console=messages(), **how)
    except KeyboardInterrupt as error:
        received = error.signal if isinstance(error, StageInterrupted) else signal.SIGINT
        text = f"interrupted; what is done is in {config.output_dir}, and the same command goes on"
        messages().print(text, markup=False, soft_wrap=True)
        return _SIGNAL_EXIT + received
    if isinstance(result, LoopResult):
        show_loop(result)
        return 0 if result.is_complete else 1
    _show_result(result)
    return 0 if all(outcome.is_complete for outcome in result.stages) else 1


def _stop_stage(number: int, frame: Any) -> NoReturn:
    from understudy.api.pipeline import StageInterrupted

    raise StageInterrupted(signal.Signals(number))


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


def show_loop(result: LoopResult) -> None:
    """Show how the iterations did, and where everything is."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from understudy.api.pipeline import loop_report

    if result.history is None:
        return
    console = results()
    head, *rows = loop_report.table_rows(result.history)
    table = Table(box=box.SIMPLE_HEAD)
    for column in head:
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    if (text := loop_report.held_out_text(result.history)) is not None:
        console.print(text, markup=False, soft_wrap=True)
    for name, path in {"report": result.folder / loop_report.HTML_REPORT, "model": result.folder / "final"}.items():
        console.print(f"{name:7} {path}", markup=False, soft_wrap=True)


def _dry_run(config: RunConfig, *, start_iteration: int | None, **how: Any) -> None:
    """Check every stage, show how far each is and what follows for it; train's own dry run where its data is there."""
    from understudy.api.pipeline import plan, plan_loop

    if config.iterations is not None:
        planned = plan_loop(config, start_iteration=start_iteration, **how)
        for one, stages in planned:
            _show_plan(one, stages)
        left = config.iterations - len(planned)
        if left:
            text = f"then {left} more iterations likewise, each with the model of the one before"
            results().print(text, markup=False, soft_wrap=True)
        return
    if start_iteration is not None:
        raise ConfigError(f"--from-iteration {start_iteration}: this run has no iterations")
    _show_plan(config, plan(config, **how))


def _show_plan(config: RunConfig, planned: list[PlannedStage]) -> None:
    from rich import box
    from rich.table import Table

    from understudy.api import dry_runs

    from .train import show_dry_runs

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

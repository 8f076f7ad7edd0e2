"""The one way in: a config is read and checked, and run once or in iterations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from understudy.errors import ConfigError

from .loop import LoopResult, run_loop
from .pipeline import AnyRunConfig, RunResult, read_run_config, run_stages

if TYPE_CHECKING:
    from rich.console import Console


def run(
    config: AnyRunConfig,
    *,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    start_from: str | None = None,
    start_iteration: int | None = None,
    console: Console | None = None,
) -> RunResult | LoopResult:
    """Run all stages of a config that are not done yet, with `iterations` again and again.

    Args:
        config: a config, a mapping of its keys, or a YAML file.
        overrides: ``dotted.key=value``.
        overwrite: delete what the folder holds, and start.
        start_from: a stage that is done anew, with all that follow it.
        start_iteration: the iteration of that stage; alone, all of it is done anew.
        console: where progress is shown; stderr by default.

    Raises:
        ConfigError: something in the config is wrong, or a stage was done with other settings or on other files.
        KeyboardInterrupt: it was interrupted; the same call goes on.
        UnderstudyError: as the stages' own commands.
    """
    checked = read_run_config(config, overrides)
    if checked.iterations is not None:
        return run_loop(
            checked, overwrite=overwrite, start_from=start_from, start_iteration=start_iteration, console=console
        )
    if start_iteration is not None:
        raise ConfigError(f"--from-iteration {start_iteration}: this run has no iterations")
    return run_stages(checked, overwrite=overwrite, start_from=start_from, console=console)

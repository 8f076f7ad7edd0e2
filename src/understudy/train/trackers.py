"""TensorBoard, W&B, SwanLab, MLflow, Trackio and others, through transformers' own integrations with them.

Each needs its own package, and none is needed: a run's metrics are always in ``metrics.jsonl``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from understudy.errors import ConfigError, MissingDependency, TrainError, did_you_mean

from .config import TrainSection

logger = logging.getLogger(__name__)

# Settings that transformers' TrainingArguments has too: trackers show these as the run's own.
_SHARED = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "seed",
)


# Where transformers' integrations look a project's name up when they start. Trackio's comes with the arguments.
_PROJECT_VARIABLES = {
    "clearml": "CLEARML_PROJECT",
    "comet_ml": "COMET_PROJECT_NAME",
    "mlflow": "MLFLOW_EXPERIMENT_NAME",
    "neptune": "NEPTUNE_PROJECT",
    "swanlab": "SWANLAB_PROJECT",
    "wandb": "WANDB_PROJECT",
}


class Trackers:
    """Sends metrics to the named trackers.

    Args:
        names: as in transformers' ``report_to``.
        folder: the run's folder; trackers that write files write below it.
        model: its config is shown beside the metrics.
        num_steps: of the whole run.

    Raises:
        ConfigError: a tracker is unknown.
        MissingDependency: its package is not installed.
        TrainError: it cannot start, for instance because its server cannot be reached.
    """

    def __init__(
        self, names: Sequence[str], folder: Path, config: TrainSection, model: nn.Module, *, num_steps: int
    ) -> None:
        self._handlers: dict[str, Any] = {}
        if not names:
            return
        from transformers import TrainerControl, TrainerState, TrainingArguments
        from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback

        shared = {name: getattr(config, name) for name in _SHARED}
        if config.project is not None:
            shared["project"] = config.project
        with _silent():  # it warns of a process group that it did not make itself
            self._arguments = TrainingArguments(
                output_dir=str(folder), run_name=config.run_name or folder.name, report_to=[], **shared
            )
        self._state = TrainerState(is_world_process_zero=True, is_local_process_zero=True, max_steps=num_steps)
        self._control = TrainerControl()
        for name in names:
            # the handler warns without the first
            self._handlers[name] = CallbackHandler([DefaultFlowCallback(), _callback(name)], model, None, None, None)
            try:
                with _project(name, config.project):
                    self._handlers[name].on_train_begin(self._arguments, self._state, self._control)
            except Exception as error:  # foreign code: whatever it raises, this tracker cannot be used
                raise TrainError(
                    f"train.report_to: {name} does not start: {type(error).__name__}: {error} (mend: set it up as its "
                    "own documentation says, or leave it out: metrics.jsonl has all figures)"
                ) from error

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send flat metrics. The names of transformers' trainer (``loss``, ``eval_loss``, …) are kept."""
        if self._handlers:
            self._state.global_step = step
        self._tell("on_log", dict(metrics))

    def close(self) -> None:
        """End all trackers."""
        self._tell("on_train_end")

    def _tell(self, event: str, *details: Any) -> None:
        """Tell every tracker. One that fails now is left out from here on: no server's fault may cost a run."""
        for name, handler in list(self._handlers.items()):
            try:
                getattr(handler, event)(self._arguments, self._state, self._control, *details)
            except Exception as error:
                del self._handlers[name]
                logger.warning(
                    "%s failed and gets no more metrics; metrics.jsonl has all: %s: %s",
                    *(name, type(error).__name__, error),
                )


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that cannot be used, before anything heavy starts.

    Raises:
        ConfigError, MissingDependency: as `Trackers`.
    """
    for name in names:
        _callback(name)


@contextmanager
def _project(tracker: str, project: str | None) -> Iterator[None]:
    """Let a tracker that starts find its project's name where it looks for it."""
    variable = _PROJECT_VARIABLES.get(tracker)
    if project is None or variable is None:
        yield
        return
    before = os.environ.get(variable)
    os.environ[variable] = project
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


@contextmanager
def _silent() -> Iterator[None]:
    """Keep transformers from logging warnings."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _callback(name: str) -> Any:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    if name not in INTEGRATION_TO_CALLBACK:
        known = ", ".join(INTEGRATION_TO_CALLBACK)
        hint = did_you_mean(name, INTEGRATION_TO_CALLBACK)
        raise ConfigError(f"train.report_to: unknown tracker {name!r}.{hint} Known: {known}")
    try:
        return INTEGRATION_TO_CALLBACK[name]()
    except (RuntimeError, ImportError) as error:
        raise MissingDependency(name, needed_for=f"train.report_to: {name}", install=name) from error

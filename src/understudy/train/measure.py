"""The loss of a model on rows, without training: what validation within a run computes, of any model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .adapter import ModelAdapter
from .engines.local import LocalEngine
from .inputs import RunInputs
from .self_check import check_losses
from .setup import check_fits, check_vocabulary, make_runner, with_possible_layout
from .stats import StepStats
from .trainer import Evaluator

if TYPE_CHECKING:
    from torch import nn


def measure(inputs: RunInputs, model: nn.Module) -> StepStats:
    """Return the loss of a model over all held-out examples.

    Args:
        inputs: what `prepare_inputs` gives, with something held out. Of the training settings, the layout and the batch
            size decide how it is computed, and no result.
        model: on its device; its weights are left as they are.

    Raises:
        TrainError: the model cannot be measured, or trees do not give it the losses of separate rows.
        ConfigError: a row does not fit a batch, and the model cannot take trees; or a token id is not the model's.
    """
    adapter = ModelAdapter(model)
    settings = with_possible_layout(adapter, inputs.config.train)
    check_fits(inputs.data, settings, takes_trees=settings is inputs.config.train)
    check_vocabulary(inputs.data, adapter.num_embeddings)
    runner, backend = make_runner(adapter, settings)
    if backend is not None:
        check_losses(adapter, backend, inputs.data.validation[0].examples[0])
    engine = LocalEngine(adapter, runner, coefficients=inputs.objective.coefficients)
    return Evaluator(engine, inputs.data.validation, settings).run()

"""How well a model predicts what the environment answers: its loss, and how often it gets a whole observation right.

Each observation that follows an action in a held-out episode is written by the model itself: greedily, after the very
ids that stand before the observation's first token in training, up to the token that ends it. It is right when its ids
are those of what was observed. What was observed before stands as it was, so mistakes do not add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from understudy.batching import LengthLimiter
from understudy.errors import DataError
from understudy.objectives import Objective
from understudy.objectives.world_model import TERM
from understudy.policies.generation import Generator, Request, Sampling
from understudy.runs import Progress
from understudy.train.config import ModelSection, ObjectiveSection
from understudy.types import Span, SpanKind, TokenTree, Trajectory

from .config import LossSection, MeasuredRows, WorldModelSection
from .held_out import TermLoss, measure_loss
from .measured import Measured, label_of_measured
from .statistics import Estimate, success_interval

if TYPE_CHECKING:
    from rich.console import Console

    from understudy.rendering import Renderer

SOURCE = "world_model.data_path"


@dataclass(slots=True)
class Tally:
    """How many observations of a kind were predicted, and how many of them exactly."""

    num: int = 0
    num_exact: int = 0

    @property
    def rate(self) -> float:
        """The share that was predicted exactly."""
        return self.num_exact / self.num


@dataclass(frozen=True, slots=True)
class WrongPrediction:
    """An observation that was predicted wrongly.

    Args:
        place: file and row of its episode.
        turn: whose observation it is.
        kind: its role, and the tool that it is the result of.
        observed, predicted: both texts with the token that ends them; a prediction is not written on beyond the length
            of what was observed.
    """

    place: str
    agent: str
    turn: int
    kind: str
    observed: str
    predicted: str


@dataclass(frozen=True, slots=True)
class Predictions:
    """What one model predicted.

    Args:
        model: its name.
        agents: whose observations; None for all that it plays.
        loss: of the observations' tokens, as training has it.
        exact: the share of observations that were predicted exactly; those of one episode count as alike.
        by_kind: the same by role, and by tool where it is a tool's result.
        num_episodes: those with an observation that follows an action.
        num_unlocated: observations whose tokens cannot be told from the template's; they are not counted above.
        wrong: the first wrong predictions.
    """

    model: str
    agents: tuple[str, ...] | None
    loss: TermLoss
    exact: Estimate
    by_kind: dict[str, Tally]
    num_episodes: int
    num_observations: int
    num_unlocated: int
    wrong: tuple[WrongPrediction, ...]

    @property
    def label(self) -> str:
        """What it is called in reports."""
        return label_of_measured(self.model, self.agents)


@dataclass(frozen=True, slots=True)
class _Observed:
    """An observation to predict: the ids before it, and its own."""

    episode: int
    place: str
    agent: str
    turn: int
    kind: str
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]


@dataclass(slots=True)
class _Gathered:
    """What the rows hold."""

    observed: list[_Observed] = field(default_factory=list)
    num_unlocated: int = 0


def measure_predictions(
    config: WorldModelSection, measured: Measured, *, confidence: float, console: Console | None = None
) -> Predictions:
    """Let one model predict all observations of the rows.

    Args:
        confidence: of the interval.
        console: where progress is shown; stderr by default.

    Raises:
        ConfigError: the model cannot be loaded.
        DataError: the rows hold nothing to predict, or one is too long.
        RenderError: a row cannot be rendered.
        TrainError: the model's loss cannot be measured.
    """
    from understudy.models.trained import load_trained, model_folder
    from understudy.train.distributed import training_device
    from understudy.train.setup import make_objective, make_renderer

    loss = measure_loss(_loss_section(config), measured, SOURCE)
    folder = model_folder(measured.model)
    objective = ObjectiveSection(name="world_model", observation_roles=config.observation_roles)
    section = ModelSection(path=folder, trust_remote_code=config.trust_remote_code)
    weigher = make_objective(objective)
    renderer = make_renderer(config.rendering, section, folder, weigher)
    found = _gather(config, measured, renderer, weigher)
    if not found.observed:
        raise DataError("no observation that follows an action can be predicted", file=SOURCE)
    model = load_trained(
        folder,
        dtype=config.dtype,
        device=training_device(config.device),
        trust_remote_code=config.trust_remote_code,
    )
    ends = frozenset(one.ids[-1] for one in found.observed) & frozenset(renderer.segments.added.values())
    generator = Generator(model, ends, Sampling(temperature=0.0))
    predicted = _predict(generator, found.observed, config.max_batch_size, console)
    backend = renderer.tokenizer.backend

    def text(ids: Sequence[int]) -> str:
        return str(backend.decode(list(ids), skip_special_tokens=False))

    pairs = list(zip(found.observed, predicted, strict=True))
    wrong = [(one, ids) for one, ids in pairs if ids != one.ids][: config.num_shown]
    outcomes: dict[int, list[float]] = {}
    for one, ids in pairs:
        outcomes.setdefault(one.episode, []).append(float(ids == one.ids))
    return Predictions(
        model=measured.model,
        agents=measured.agents,
        loss=loss.terms[TERM],
        exact=success_interval(list(outcomes.values()), confidence),
        by_kind=_tallies(pairs),
        num_episodes=len(outcomes),
        num_observations=len(pairs),
        num_unlocated=found.num_unlocated,
        wrong=tuple(WrongPrediction(o.place, o.agent, o.turn, o.kind, text(o.ids), text(ids)) for o, ids in wrong),
    )


def _loss_section(config: WorldModelSection) -> LossSection:
    shared = {name: getattr(config, name) for name in MeasuredRows.model_fields}
    objective = ObjectiveSection(name="world_model", observation_roles=config.observation_roles)
    return LossSection(**shared, objective=objective)


def _gather(config: WorldModelSection, measured: Measured, renderer: Renderer, objective: Objective) -> _Gathered:
    """Render the rows, and find the observations that follow an action.

    Args:
        objective: says which tokens count for the limit of length, as it does for the loss.
    """
    limiter = LengthLimiter(config.max_length, config.max_length_policy)
    source = measured.source(config, SOURCE)
    found = _Gathered()
    for number, (place, episode) in enumerate(source.episodes):
        for trajectory in filter(source.selects, episode.trajectories):
            rendered = renderer.render(trajectory)
            found.num_unlocated += rendered.num_unlocated_observations
            weights = objective.weigh(rendered.tree, trajectory, episode)[TERM]
            tree = limiter.apply(rendered.tree, place, trained=partial(np.not_equal, weights, 0))
            for ids, span in _spans(tree, trajectory) if tree is not None else ():
                if config.observation_roles is None or span.label in config.observation_roles:
                    kind = _kind(trajectory, span)
                    before, own = tuple(ids[: span.start]), tuple(ids[span.start : span.stop])
                    found.observed.append(_Observed(number, place, trajectory.agent, span.turn, kind, before, own))
    return found


def _spans(tree: TokenTree, trajectory: Trajectory) -> Iterator[tuple[list[int], Span]]:
    """Yield each observation that follows an action, with the ids of the sequence that it stands in."""
    for number, (_, spans) in enumerate(tree.sequences):
        wanted = [span for span in spans if span.kind == SpanKind.OBSERVATION and _follows_action(trajectory, span)]
        ids = tree.sequence_ids(number).tolist() if wanted else []
        yield from ((ids, span) for span in wanted)


def _follows_action(trajectory: Trajectory, span: Span) -> bool:
    acted = trajectory.turns[span.turn].parent
    return acted is not None and trajectory.turns[acted].action is not None


def _kind(trajectory: Trajectory, span: Span) -> str:
    """Return an observation's role, and the tool that was called for it."""
    turn = trajectory.turns[span.turn]
    message = turn.observation[span.message]
    action = trajectory.turns[turn.parent].action if turn.parent is not None else None
    called = {call.id: call.name for call in action.tool_calls} if action is not None else {}
    name = message.name or called.get(message.tool_call_id)
    return f"{message.role} {name}" if message.role == "tool" and name else message.role


def _predict(
    generator: Generator, observed: Sequence[_Observed], max_batch_size: int, console: Console | None
) -> list[tuple[int, ...]]:
    """Return the ids that the model writes for each observation; alike lengths are written together."""
    order = sorted(range(len(observed)), key=lambda index: len(observed[index].prompt_ids))
    predicted: dict[int, tuple[int, ...]] = {}
    with Progress("predicting", unit="observations", total=len(observed), console=console) as progress:
        for start in range(0, len(order), max_batch_size):
            batch = order[start : start + max_batch_size]
            requests = [Request(observed[index].prompt_ids, len(observed[index].ids), seed=0) for index in batch]
            for index, generated in zip(batch, generator.generate(requests), strict=True):
                predicted[index] = generated.ids
            progress.advance(len(batch))
    return [predicted[index] for index in range(len(observed))]


def _tallies(pairs: Iterable[tuple[_Observed, tuple[int, ...]]]) -> dict[str, Tally]:
    """Count by role, and by tool, in alphabetical order."""
    tallies: dict[str, Tally] = {}
    for one, ids in pairs:
        tally = tallies.setdefault(one.kind, Tally())
        tally.num += 1
        tally.num_exact += ids == one.ids
    return dict(sorted(tallies.items()))

"""What each objective weighs, turn by turn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from understudy import registry
from understudy.errors import ConfigError, DataError
from understudy.types import (
    Episode,
    Message,
    Span,
    SpanKind,
    TokenTree,
    TokenTreeBuilder,
    Trajectory,
    turns_from_messages,
)

# system+user 0:4 | action 4:6 | tool 7:9 | action 10:12 | closing tool 13:15
ACTIONS = {0: (4, 6), 1: (10, 12)}
OBSERVATIONS = {0: (1, 4), 1: (7, 9), 2: (13, 15)}


@pytest.fixture
def trajectory() -> Trajectory:
    messages = [
        Message("user", "go"),
        Message("assistant", "call"),
        Message("tool", "seen"),
        Message("assistant", "done"),
        Message("user", "bye"),
    ]
    return Trajectory(turns_from_messages(messages))


@pytest.fixture
def tree() -> TokenTree:
    roles = {0: "user", 1: "tool", 2: "user"}
    spans = [Span(SpanKind.ACTION, turn, *at) for turn, at in ACTIONS.items()]
    spans += [Span(SpanKind.OBSERVATION, turn, *at, message=0, label=roles[turn]) for turn, at in OBSERVATIONS.items()]
    builder = TokenTreeBuilder()
    builder.insert(list(range(16)), spans)
    return builder.build()


def expected(parts: dict[tuple[int, int], float]) -> list[float]:
    out = np.zeros(16)
    for (start, stop), weight in parts.items():
        out[start:stop] = weight
    return out.tolist()


def make(name: str, **arguments: object):
    return registry.load("objectives", name)(**arguments)


def test_cloning_weighs_actions_and_nothing_else(tree: TokenTree, trajectory: Trajectory) -> None:
    weights = make("behavioral_cloning").weigh(tree, trajectory)
    assert weights["behavioral_cloning"].tolist() == expected(dict.fromkeys(ACTIONS.values(), 1.0))


def test_the_world_model_weighs_observations_that_follow_an_action(tree: TokenTree, trajectory: Trajectory) -> None:
    weights = make("world_model").weigh(tree, trajectory)
    assert weights["world_model"].tolist() == expected({OBSERVATIONS[1]: 1.0, OBSERVATIONS[2]: 1.0})


def test_the_world_model_can_be_held_to_roles(tree: TokenTree, trajectory: Trajectory) -> None:
    weights = make("world_model", observation_roles=["tool"]).weigh(tree, trajectory)
    assert weights["world_model"].tolist() == expected({OBSERVATIONS[1]: 1.0})


def test_combined_has_both_terms_with_their_coefficients(tree: TokenTree, trajectory: Trajectory) -> None:
    objective = make("combined", bc_weight=0.5, world_model_weight=2.0)
    assert objective.coefficients == {"behavioral_cloning": 0.5, "world_model": 2.0}
    weights = objective.weigh(tree, trajectory)
    for name in objective.coefficients:
        assert np.array_equal(weights[name], make(name).weigh(tree, trajectory)[name])


def test_turn_weights_multiply(tree: TokenTree, trajectory: Trajectory) -> None:
    spans = tuple(replace(span, weight=0.25) if span.turn == 1 else span for span in tree.sequences[0][1])
    weighted = replace(tree, sequences=((tree.sequences[0][0], spans),))
    objective = make("behavioral_cloning", weight_by="score")
    turns = tuple(replace(turn, annotations={"score": 3.0}) for turn in trajectory.turns)
    weights = objective.weigh(weighted, replace(trajectory, turns=turns))
    assert weights["behavioral_cloning"].tolist() == expected({ACTIONS[0]: 3.0, ACTIONS[1]: 0.75})


def test_an_observation_has_the_merit_of_the_action_that_it_answers(tree: TokenTree, trajectory: Trajectory) -> None:
    turns = tuple(replace(turn, reward=float(10 + n)) for n, turn in enumerate(trajectory.turns))
    weights = make("world_model", weight_by="turn_reward").weigh(tree, replace(trajectory, turns=turns))
    assert weights["world_model"].tolist() == expected({OBSERVATIONS[1]: 10.0, OBSERVATIONS[2]: 11.0})


def test_a_trajectorys_reward_wins_over_the_episodes(tree: TokenTree, trajectory: Trajectory) -> None:
    objective = make("behavioral_cloning", weight_by="reward")
    own = replace(trajectory, reward=0.5)
    for given, weight in ((own, 0.5), (trajectory, 0.25)):
        weights = objective.weigh(tree, given, Episode("e", (given,), reward=0.25))
        assert weights["behavioral_cloning"].max() == weight


def test_tokens_that_two_turns_share_add_their_weights(trajectory: Trajectory) -> None:
    builder = TokenTreeBuilder()
    builder.insert([1, 2, 3], [Span(SpanKind.ACTION, 0, 1, 3)])
    builder.insert([1, 2, 4], [Span(SpanKind.ACTION, 1, 1, 3, weight=0.5)])
    weights = make("behavioral_cloning").weigh(builder.build(), trajectory)
    assert weights["behavioral_cloning"].tolist() == [0, 1.5, 1, 0.5]


@pytest.mark.parametrize("value", [None, True, "high", float("nan"), 10**400])
def test_a_weight_that_is_missing_or_no_number_is_refused(
    value: object, tree: TokenTree, trajectory: Trajectory
) -> None:
    turns = tuple(replace(turn, annotations={"advantage": value}) for turn in trajectory.turns)
    with pytest.raises(DataError, match=r"turns\[0\]\.annotations\.advantage.*needs a number") as caught:
        make("behavioral_cloning", weight_by="advantage").weigh(tree, replace(trajectory, turns=turns))
    assert caught.value.mend


def test_a_weight_may_be_an_integer_that_is_larger_than_numpys(tree: TokenTree, trajectory: Trajectory) -> None:
    turns = tuple(replace(turn, annotations={"score": 10**20}) for turn in trajectory.turns)
    weights = make("behavioral_cloning", weight_by="score").weigh(tree, replace(trajectory, turns=turns))
    assert weights["behavioral_cloning"].max() == 1e20


@pytest.mark.parametrize("arguments", [{"bc_weight": -1.0}, {"bc_weight": 0.0, "world_model_weight": 0.0}])
def test_coefficients_that_train_nothing_are_refused(arguments: dict) -> None:
    with pytest.raises(ConfigError, match="weight"):
        make("combined", **arguments)

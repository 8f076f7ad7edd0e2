from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training import weather_episodes
from understudy import registry
from understudy.errors import ConfigError, DataError, RenderError
from understudy.rendering import Renderer, load_tokenizer
from understudy.train.data import EpisodeSource, PreparedData, _hold_out, prepare
from understudy.train.data_config import DataSection
from understudy.types import ORIGIN, Episode


@pytest.fixture(scope="module")
def renderer(base: Path) -> Renderer:
    return Renderer(load_tokenizer(base), observations=True)


def source(episodes: Iterable[Episode], name: str = "weather", **options: Any) -> EpisodeSource:
    return EpisodeSource(name, [(f"{name}:{n}", episode) for n, episode in enumerate(episodes, start=1)], **options)


def prepared(
    renderer: Renderer,
    sources: Sequence[EpisodeSource] | None = None,
    objective: str = "behavioral_cloning",
    seed: int = 0,
    **config: Any,
) -> PreparedData:
    sources = [source(weather_episodes())] if sources is None else sources
    return prepare(sources, renderer, registry.load("objectives", objective)(), DataSection(**config), seed=seed)


def names(examples: Iterable[Any]) -> set[str]:
    return {example.name for example in examples}


def test_each_trajectory_becomes_an_example_with_its_actions_as_targets(renderer) -> None:
    data = prepared(renderer)
    (report,) = data.reports
    assert (report.num_episodes, report.num_examples, report.num_held_out) == (6, 6, 0)
    assert report.num_turns == sum(episode.num_actions() for episode in weather_episodes())
    assert report.num_targets == sum(len(example.label) for example in data.train[0].examples)


def test_equal_data_has_equal_fingerprints_wherever_it_lies(renderer) -> None:
    elsewhere = source(weather_episodes(), name="weather")
    moved = replace(elsewhere, episodes=[(f"other/{place}", episode) for place, episode in elsewhere.episodes])
    assert prepared(renderer).fingerprint == prepared(renderer, [moved]).fingerprint


@pytest.mark.parametrize("change", ["order", "weight", "split", "objective", "length"])
def test_whatever_changes_a_loss_changes_the_fingerprint(renderer, change: str) -> None:
    episodes = list(weather_episodes())
    options: dict[str, Any] = {}
    if change == "order":
        episodes.reverse()
    elif change == "weight":
        trajectory = episodes[0].trajectories[0]
        turns = (replace(trajectory.turns[0], weight=0.5), *trajectory.turns[1:])
        episodes[0] = replace(episodes[0], trajectories=(replace(trajectory, turns=turns),))
    elif change == "split":
        options = {"validation_split": 0.3}
    elif change == "objective":
        options = {"objective": "combined"}
    else:
        longest = max(example.longest_path for example in prepared(renderer).train[0].examples)
        options = {"max_length": longest, "max_length_policy": "cut_turns"}
    assert prepared(renderer, [source(episodes)], **options).fingerprint != prepared(renderer).fingerprint


def test_the_split_is_a_function_of_the_seed(renderer) -> None:
    splits = [
        frozenset(names(prepared(renderer, seed=seed, validation_split=0.34).validation[0].examples))
        for seed in (0, 0, 1, 2, 3)
    ]
    assert splits[0] == splits[1]
    assert len(set(splits)) > 1
    assert all(len(split) == 2 for split in splits)


def test_both_sides_of_the_split_are_all_there_is(renderer) -> None:
    data = prepared(renderer, validation_split=0.34)
    train, held_out = names(data.train[0].examples), names(data.validation[0].examples)
    assert not train & held_out
    assert train | held_out == names(prepared(renderer).train[0].examples)


def test_rows_of_one_rollout_stay_together_when_split_by_says_so(renderer) -> None:
    episodes = [
        replace(episode, id=f"{rollout}-{turn}", metadata={"rollout_idx": rollout})
        for rollout in range(3)
        for turn, episode in enumerate(weather_episodes()[:3])
    ]
    data = prepared(renderer, [source(episodes)], validation_split=0.34, split_by=("metadata.rollout_idx",))
    held_out = {int(name.partition(":")[2]) for name in names(data.validation[0].examples)}
    assert held_out in ({1, 2, 3}, {4, 5, 6}, {7, 8, 9})


def test_an_episode_and_what_was_made_of_it_in_hindsight_stay_together(renderer) -> None:
    played = [replace(episode, id=f"e{n}") for n, episode in enumerate(weather_episodes())]
    copies = [replace(e, id=f"{e.id}-hindsight", metadata={ORIGIN: e.id}) for e in played]
    for seed in range(3):
        data = prepared(renderer, [source([*played, *copies])], validation_split=0.34, seed=seed)
        held_out = {int(name.partition(":")[2]) for name in names(data.validation[0].examples)}
        assert {number + 6 for number in held_out if number <= 6} == {number for number in held_out if number > 6}


@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.floats(0.01, 0.99), st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_equal_keys_never_stand_on_both_sides(keys: list[int], share: float, seed: int) -> None:
    words = [str(key) for key in keys]
    if len(set(words)) < 2:
        with pytest.raises(ConfigError):
            _hold_out(words, share, seed, "data", {})
        return
    held_out = _hold_out(words, share, seed, "data", {})
    chosen = {word for word, out in zip(words, held_out, strict=True) if out}
    assert chosen.isdisjoint({word for word, out in zip(words, held_out, strict=True) if not out})
    assert 0 < len(chosen) < len(set(words))
    assert abs(len(chosen) - share * len(set(words))) <= 1


def test_a_task_of_several_sources_stands_on_one_side_of_the_split_in_all_of_them(renderer) -> None:
    tasks = [replace(episode, task=number) for number, episode in enumerate(weather_episodes())]
    others = [replace(episode, task=f"another {episode.task}") for episode in tasks]
    sources = [source(tasks, "expert"), source(tasks[:5], "model"), source(others, "other")]
    data = prepared(renderer, sources, validation_split=0.34, split_by=("task",))
    expert, model, other = ({name.partition(":")[2] for name in names(s.examples)} for s in data.validation)
    assert len(expert) == 2
    assert model == expert & {"1", "2", "3", "4", "5"}
    alone = prepared(renderer, sources[2:], validation_split=0.34, split_by=("task",))
    assert {name.partition(":")[2] for name in names(alone.validation[0].examples)} == other


def test_a_source_of_which_others_hold_out_everything_is_refused(renderer) -> None:
    tasks = [replace(episode, task=number) for number, episode in enumerate(weather_episodes())]
    held_out = names(prepared(renderer, [source(tasks)], validation_split=0.34).validation[0].examples)
    same = [episode for n, episode in enumerate(tasks, start=1) if f"weather:{n}" in held_out]
    with pytest.raises(ConfigError, match=r"all that source 'model' has is held out.*data.validation_path"):
        prepared(renderer, [source(tasks), source(same, "model")], validation_split=0.34)


def test_a_source_that_is_held_out_is_validated_on_and_not_trained_on(renderer) -> None:
    held_out = source(weather_episodes()[4:], name="validation", held_out=True)
    data = prepared(renderer, [source(weather_episodes()[:4]), held_out])
    assert [s.name for s in data.train] == ["weather"]
    assert [(s.name, len(s.examples)) for s in data.validation] == [("validation", 2)]


def test_only_the_chosen_agents_are_trained_and_the_others_are_counted(renderer) -> None:
    first, second, *_ = weather_episodes()
    other = replace(second.trajectories[0], agent="critic", policy="p2")
    episode = replace(first, trajectories=(*first.trajectories, other))
    data = prepared(renderer, [source([episode], agents=("critic",))])
    assert len(data.train[0].examples) == 1
    assert data.reports[0].num_unselected == 1
    assert data.reports[0].agents == {"planner": 1, "critic": 1}
    assert len(prepared(renderer, [source([episode], policies=("p2",))]).train[0].examples) == 1
    with pytest.raises(ConfigError, match=r"no trajectory of .weather. is of .critics.\. Did you mean .critic."):
        prepared(renderer, [source([episode], agents=("planner", "critics"))])
    with pytest.raises(ConfigError, match=r"data.policies: .* of 'p3'.* It has: p2"):
        prepared(renderer, [source([episode], policies=("p3",))])


def test_trajectories_that_are_too_long_are_dropped_and_counted(renderer) -> None:
    lengths = sorted(example.longest_path + 1 for example in prepared(renderer).train[0].examples)
    data = prepared(renderer, max_length=lengths[2], max_length_policy="drop")
    assert len(data.train[0].examples) == 3
    assert data.reports[0].lengths.num_dropped == 3


@pytest.mark.parametrize("policy", ["error", "drop", "cut_turns"])
def test_an_action_that_the_objective_does_not_train_makes_no_trajectory_too_long(renderer, policy: str) -> None:
    whole = prepared(renderer, objective="world_model")
    longest = max(example.longest_path + 1 for example in whole.train[0].examples)
    limits = {"max_length": longest, "max_length_policy": policy}
    held = prepared(renderer, objective="world_model", **limits)
    assert held.fingerprint == whole.fingerprint
    assert (held.reports[0].lengths.num_dropped, held.reports[0].lengths.num_cut) == (0, 0)
    with pytest.raises(DataError, match=rf"{longest} tokens through the last trained one are more than"):
        prepared(renderer, objective="world_model", max_length=longest - 1)


def test_a_trajectory_that_is_too_long_is_refused_with_its_place_by_default(renderer) -> None:
    with pytest.raises(DataError, match=r"weather:\d.*more than max_length 50.*max_length_policy"):
        prepared(renderer, max_length=50)


def test_a_refused_turn_stops_with_its_place_or_is_left_out_and_counted(base) -> None:
    def refuses(on_refusal: str) -> PreparedData:
        renderer = Renderer(load_tokenizer(base), on_refusal=on_refusal)  # type: ignore[arg-type]
        spoiled = [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "a stop <|im_end|> inside"},
            {"role": "user", "content": "again"},
            {"role": "assistant", "content": "fine"},
        ]
        return prepared(renderer, [source([Episode.from_messages(spoiled), weather_episodes()[0]])])

    with pytest.raises(RenderError, match=r"weather:1: turn 0: STOP_INSIDE_TURN.*rendering.on_refusal: skip"):
        refuses("fail")
    report = refuses("skip").reports[0]
    assert dict(report.refusals) == {"STOP_INSIDE_TURN": 1}
    assert report.num_examples == 2


def test_a_missing_weight_is_refused_with_its_place(renderer) -> None:
    objective = registry.load("objectives", "behavioral_cloning")(weight_by="advantage")
    with pytest.raises(DataError, match=r"weather:1: .*advantage"):
        prepare([source(weather_episodes())], renderer, objective, DataSection(), seed=0)


def test_data_that_supervises_nothing_is_refused_with_the_reason(renderer) -> None:
    silent = Episode.from_messages([{"role": "user", "content": "anyone?"}])
    with pytest.raises(DataError, match="nothing is left to train on: 1 episodes, but 1 trajectories have no token"):
        prepared(renderer, [source([silent])])


def test_data_without_rows_is_refused(renderer) -> None:
    with pytest.raises(DataError, match="nothing is left to train on: 0 episodes"):
        prepared(renderer, [source([])])


def test_with_a_temperature_shares_are_powers_of_the_sizes(renderer) -> None:
    def ratios(temperature: float) -> tuple[float, ...] | None:
        sources = [source(weather_episodes()[:4], "four"), source(weather_episodes()[4:5], "one")]
        return prepared(renderer, sources, temperature=temperature).ratios

    assert [ratios(temperature) for temperature in (1, 2)] == [(4, 1), (2, 1)]
    assert ratios(1000) == pytest.approx((1, 1), abs=0.01)


def test_one_episode_cannot_be_split(renderer) -> None:
    with pytest.raises(ConfigError, match=r"validation_split is 0.5.*has 1 episode"):
        prepared(renderer, [source(weather_episodes()[:1])], validation_split=0.5)


def test_the_world_model_is_trained_on_what_follows_an_action(renderer) -> None:
    data = prepared(renderer, objective="combined")
    for example in data.train[0].examples:
        cloning, world_model = example.weights
        assert cloning.sum() > 0
        assert world_model.sum() > 0
        assert not np.any((cloning > 0) & (world_model > 0))

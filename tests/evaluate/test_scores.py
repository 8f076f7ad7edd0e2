"""From episodes to scores: what counts, what does not, and what is unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from statsmodels.stats.proportion import proportion_confint

from understudy.evaluate import compare, outcome_of, score
from understudy.types import Episode, Message, SampledTokens, Trajectory, Turn


def episode(
    number: int, success: bool | None, *, sample: int = 0, error: str | None = None, reward: float | None = None
) -> Episode:
    """Return a play of a task with one turn."""
    turn = Turn(None, (Message("user", "Go."),), Message("assistant", "Done."))
    return Episode(
        f"{number}-{sample}", (Trajectory((turn,), success=success, reward=reward),), task={"n": number}, seed=number,
        success=success, reward=reward, error=error, stop_reason="error" if error else "done",
        metadata={"task_index": number, "sample": sample},
    )  # fmt: skip


def scored(episodes: list[Episode], **options):
    return score([outcome_of(one) for one in episodes], **options)


def test_an_error_is_no_failure_and_an_unknown_success_is_no_failure() -> None:
    sound = [episode(n, n < 6) for n in range(8)]
    others = [episode(8, None, error="OSError: disk\nmore"), episode(9, None)]
    found = scored(sound + others)
    assert found.success == scored(sound).success
    assert (found.success.low, found.success.high) == pytest.approx(proportion_confint(6, 8, method="wilson"))
    assert (found.num_tasks, found.num_episodes, found.num_errors, found.num_known) == (10, 10, 1, 8)
    assert found.errors == {"OSError: disk": 1}
    assert found.stop_reasons == {"done": 9}


def test_where_nothing_is_known_nothing_is_said() -> None:
    found = scored([episode(1, None), episode(2, None, error="x")])
    assert (found.success, found.reward, found.pass_at_k) == (None, None, ())
    assert found.prompt_tokens is None


def test_samples_of_one_task_are_counted_together() -> None:
    found = scored([episode(n, n < 5, sample=s) for n in range(10) for s in range(4)], k=(1, 4))
    assert (found.success.num_tasks, found.success.num_samples) == (10, 40)
    low, high = proportion_confint(5, 10, method="wilson")
    assert (found.success.low, found.success.high) == pytest.approx((low, high), abs=0.03)
    assert [(one.k, one.any, one.all, one.num_tasks) for one in found.pass_at_k] == [
        (1, 0.5, 0.5, 10),
        (4, 0.5, 0.5, 10),
    ]


def test_the_same_task_with_another_seed_is_another_task() -> None:
    found = scored([episode(1, True), replace(episode(1, True), seed=99)])
    assert found.num_tasks == 2


def test_pass_at_k_is_over_the_tasks_with_k_known_samples() -> None:
    samples = [episode(0, True), episode(0, False, sample=1), episode(1, True), episode(1, None, sample=1, error="x")]
    (first, second) = scored(samples, k=(1, 2)).pass_at_k
    assert (first.any, first.num_tasks) == (0.75, 2)
    assert (second.any, second.all, second.num_tasks) == (1.0, 0.0, 1)


def test_tokens_are_the_servers_count_or_the_recorded_ids_and_unknown_if_one_turn_is() -> None:
    def turn(**given) -> Turn:
        return Turn(None, (Message("user", "Go."),), Message("assistant", "Done."), **given)

    counted = turn(annotations={"usage": {"prompt_tokens": 10, "completion_tokens": 3}})
    recorded = turn(sampled=SampledTokens((1, 2, 3, 4), (5, 6)))
    both = outcome_of(Episode("a", (Trajectory((counted, recorded)),)))
    assert (both.prompt_tokens, both.completion_tokens) == (14, 5)
    assert outcome_of(Episode("b", (Trajectory((counted, turn())),))).prompt_tokens is None


def test_agents_are_scored_apart_where_there_are_several() -> None:
    def debate(number: int, winner: str) -> Episode:
        turn = Turn(None, (), Message("assistant", "I am right."))
        sides = tuple(
            Trajectory((turn,), agent=name, policy=f"p-{name}", success=name == winner, reward=float(name == winner))
            for name in ("pro", "contra")
        )
        return Episode(str(number), sides, task=number, success=False, reward=0.5)

    found = scored([debate(n, "pro" if n < 3 else "contra") for n in range(4)])
    assert found.success.value == 0
    assert {name: one.success.value for name, one in found.agents.items()} == {"pro": 0.75, "contra": 0.25}
    assert (found.policy, found.agents["pro"].policy) == ("p-pro, p-contra", "p-pro")
    assert scored([episode(1, True)]).agents == {}


def test_environments_are_scored_apart_where_there_are_several() -> None:
    played = [replace(episode(n, n < 5), environment="maze" if n % 4 == 0 else "shop") for n in range(8)]
    found = scored(played)
    assert list(found.environments) == ["maze", "shop"]
    assert found.environments["maze"] == scored(played[::4])
    assert (found.environments["maze"].success.value, found.environments["shop"].success.value) == (1.0, 0.5)
    assert found.environments["shop"].environments == scored([]).environments == {}


def test_a_reward_of_zeros_and_ones_has_the_interval_of_a_rate() -> None:
    assert scored([episode(n, True, reward=1.0) for n in range(20)]).reward.low < 0.9
    turns = scored([episode(n, True) for n in range(20)]).turns
    assert (turns.value, turns.low, turns.high) == (1, 1, 1)
    graded = scored([episode(n, True, reward=n / 2) for n in range(5)]).reward
    assert graded.value == 1.0
    assert graded.high - graded.value == pytest.approx(graded.value - graded.low)


def outcomes(successes: dict[int, bool | None], **options):
    return [outcome_of(episode(number, success, **options)) for number, success in successes.items()]


def test_a_comparison_is_over_tasks_that_both_have_played_and_whose_success_is_known() -> None:
    baseline = outcomes({1: False, 2: False, 3: True, 4: True, 5: None, 6: True})
    policy = outcomes({0: True, 1: True, 2: True, 3: True, 4: False, 5: True})
    found = compare(baseline, policy)
    assert (found.num_common, found.num_only_policy, found.num_only_baseline) == (5, 1, 1)
    assert (found.success.num_tasks, found.success.num_better, found.success.num_worse) == (4, 2, 1)
    assert found.success.difference == 0.25
    assert found.reward is None


def test_tasks_are_paired_by_what_they_are_and_not_by_their_order() -> None:
    baseline = outcomes({number: number % 2 == 0 for number in range(30)})
    same = outcomes({number: number % 2 == 0 for number in reversed(range(30))})
    found = compare(baseline, same).success
    assert (found.num_better, found.num_worse, found.p_value) == (0, 0, 1.0)


def test_nothing_in_common_is_no_comparison() -> None:
    found = compare(outcomes({1: True}), outcomes({2: True}))
    assert (found.success, found.num_common) == (None, 0)

"""PettingZoo's own games, with an agent on each side."""

from __future__ import annotations

from typing import Any

import pytest

from understudy import registry
from understudy.environments import says
from understudy.errors import ConfigError

from .playing import played, said

pytest.importorskip("pettingzoo")
TICTACTOE = "pettingzoo.classic.tictactoe_v3"
pytest.importorskip(TICTACTOE)
GAME = {"environment": TICTACTOE, "success_reward": 1}


def moves(*given: str) -> Any:
    left = iter(given)
    return lambda observation: says(next(left))


def test_agents_act_in_turn_and_each_has_its_own_reward_and_success() -> None:
    (episode,) = played("pettingzoo", GAME, moves("0", "I take 3.", "1", "4", "2"), num=1)
    first, second = episode.trajectories
    assert (episode.error, episode.stop_reason, episode.success) == (None, "terminated", False)
    assert [(t.agent, t.reward, t.success) for t in (first, second)] == [
        ("player_1", 1.0, True),
        ("player_2", -1.0, False),
    ]
    assert [role for role, _ in said(episode, 1)] == ["system", "user", "assistant", "user", "assistant"]
    assert [turn.action.text() for turn in second.turns if turn.action] == ["I take 3.", "4"]
    assert said(episode, 0)[0][1].startswith("Act in the environment: write one of 0, 1, 2")


def test_a_move_that_is_taken_is_asked_for_again() -> None:
    (episode,) = played("pettingzoo", GAME | {"max_steps": 3}, moves("0", "0", "1"), num=1)
    assert said(episode, 1)[3] == (
        "user",
        "That is no action that you can take. Write one of: 1, 2, 3, 4, 5, 6, 7, 8.",
    )
    assert (episode.stop_reason, episode.trajectories[0].success) == ("max_steps", False)


def test_chance_plays_legal_games_to_their_end_and_the_seed_decides_them() -> None:
    first, again = (played("pettingzoo", GAME) for _ in range(2))
    assert [said(e) for e in first] == [said(e) for e in again]
    assert {e.error for e in first} == {None}
    assert {e.stop_reason for e in first} == {"terminated"}
    assert all(sum(t.reward or 0 for t in e.trajectories) == 0 for e in first)
    unknown = played("pettingzoo", {"environment": TICTACTOE}, num=1)[0]
    assert unknown.success is None


def test_actions_may_have_names() -> None:
    names = ["rock", "paper", "scissors"]
    given = {"environment": "pettingzoo.classic.rps_v2", "arguments": {"max_cycles": 1}, "actions": names}
    (episode,) = played("pettingzoo", given, moves("paper", "Rock!"), num=1)
    assert [t.reward for t in episode.trajectories] == [1.0, -1.0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"environment": "pettingzoo.classic.tictactoe_v99"}, "pettingzoo cannot make"),
        ({"environment": TICTACTOE, "arguments": {"size": 4}}, "unexpected keyword argument 'size'"),
        ({"environment": TICTACTOE, "actions": ["a", "b"]}, "has 9 actions; give each a name"),
    ],
)
def test_what_cannot_be_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        registry.create("environments", "pettingzoo", given)

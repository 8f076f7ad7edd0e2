"""TextArena's own games, with an agent for each player."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from understudy import registry
from understudy.cli.main import main
from understudy.environments import SPLITS, says, task_key
from understudy.errors import ConfigError
from understudy.formats import read_episodes

from .playing import played, said

pytest.importorskip("textarena", reason="needs pip install 'understudy[textarena]'")

TICTACTOE = {"id": "TicTacToe-v0"}


def moves(*given: str) -> Any:
    left = iter(given)
    return lambda observation: says(next(left))


def test_players_act_in_turn_and_each_reads_what_is_new_to_it() -> None:
    (episode,) = played("textarena", TICTACTOE, moves("[0]", "I take [3].", "1", "[4]", "[2]"), num=1)
    first, second = episode.trajectories
    assert (episode.error, episode.stop_reason, episode.success) == (None, "terminated", False)
    assert [(t.agent, t.reward, t.success) for t in (first, second)] == [
        ("player_0", 1.0, True),
        ("player_1", -1.0, False),
    ]
    opening, *_ = said(episode, 1)
    assert opening[1].startswith("[GAME] You are Player 1 in Tic Tac Toe.")
    assert "[Player 0] [0]\n[GAME] Player 0 placed their symbol (O) in cell 0." in opening[1]
    assert [role for role, _ in said(episode, 0)] == ["user", "assistant"] * 3 + ["user"]
    assert all("[Player 0] [" not in text for _, text in said(episode, 0)), "what it said itself it knows"
    ends = [trajectory.turns[-1] for trajectory in episode.trajectories]
    assert [turn.action for turn in ends] == [None, None]
    assert ends[1].annotations["info"]["game_info"]["reason"] == "Player 0 has won!"


def test_the_game_asks_again_for_a_move_and_then_takes_it_for_lost() -> None:
    (episode,) = played("textarena", TICTACTOE, moves("[0]", "[0]", "[0]"), num=1)
    assert "Player 1 attempted an invalid move. Reason: cell 0 is already occupied." in said(episode, 1)[2][1]
    assert [trajectory.success for trajectory in episode.trajectories] == [True, False]
    ends = [trajectory.turns[-1].annotations["info"]["game_info"] for trajectory in episode.trajectories]
    assert [info["invalid_move"] for info in ends] == [False, True]


def test_a_draw_is_no_success_and_a_game_that_is_cut_short_is_unknown() -> None:
    (drawn,) = played("textarena", TICTACTOE, moves(*(f"[{cell}]" for cell in (0, 1, 2, 4, 3, 5, 7, 6, 8))), num=1)
    assert [(t.reward, t.success) for t in drawn.trajectories] == [(0.0, False)] * 2
    (cut,) = played("textarena", TICTACTOE | {"max_steps": 3}, moves("[0]", "[1]", "[2]"), num=1)
    assert (cut.stop_reason, [trajectory.success for trajectory in cut.trajectories]) == ("max_steps", [None] * 2)


def test_rewards_that_are_shares_say_nothing_of_success() -> None:
    from understudy.environments import Reward
    from understudy.environments.adapters.textarena import _successes

    assert _successes({"a": Reward(0.4), "b": Reward(0.6)}) == {"a": None, "b": None}
    assert _successes({"a": Reward(1), "b": Reward(-1)}) == {"a": True, "b": False}


def test_dice_and_cards_are_those_of_the_seed_even_between_others() -> None:
    """Games draw from the global generator in each step, and here three are played at once."""

    def play() -> list[Any]:
        return [said(e, 0) for e in played("textarena", {"id": "PigDice-v0-50"}, lambda _: says("[roll]"), num=6)]

    first, again = play(), play()
    assert first == again
    assert len({str(texts) for texts in first}) == 6
    deals = [said(e)[0][1] for e in played("textarena", {"id": "KuhnPoker-v0"}, lambda _: says("[check]"), num=8)]
    assert len(set(deals)) > 1


def test_there_may_be_more_players_or_one() -> None:
    three = registry.create("environments", "textarena", {"id": "ThreePlayerTicTacToe-v0", "num_players": 3})
    assert three.agents == ("player_0", "player_1", "player_2")
    alone = {"id": "GuessTheNumber-v0", "num_players": 1}
    episodes = played("textarena", alone, lambda observation: says("[7]"), num=2)
    assert [episode.error for episode in episodes] == [None, None]


def test_splits_do_not_overlap() -> None:
    environment = registry.create("environments", "textarena", TICTACTOE)
    keys = [{task_key(task) for task in environment.tasks(split)[:100]} for split in SPLITS]
    assert len(set.union(*keys)) == 300


def test_winners_are_collected_and_curated(tmp_path: Path) -> None:
    collected, chosen = tmp_path / "collected", tmp_path / "chosen"
    settings = ("environment.name=textarena", "environment.arguments.id=TicTacToe-v0", "policy.name=random")
    assert main(["collect", *settings, "num_episodes=6", f"output_dir={collected}"]) == 0
    choice = ("collect_mode=agent", "success_of=agent", "only_success=true", "validation_split=0")
    assert main(["curate", f"path={collected}", f"output_dir={chosen}", *choice]) == 0
    winners = [trajectory for episode in read_episodes(chosen) for trajectory in episode.trajectories]
    assert len(winners) == 6
    assert {trajectory.success for trajectory in winners} == {True}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"id": "TicTacTo-v0"}, "textarena has no game 'TicTacTo-v0'. Did you mean 'TicTacToe-v0'"),
        ({"id": "TicTacToe-v0", "num_players": 3}, "cannot make 'TicTacToe-v0' for 3 players: .* has to be 2"),
        ({"id": "Nim-v0", "arguments": {"heaps": 3}}, "unexpected keyword argument 'heaps'"),
        ({"id": "Debate-v0"}, "asks a model over the network"),
    ],
)
def test_what_cannot_be_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        registry.create("environments", "textarena", given)


def test_lists_of_words_are_not_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(ConfigError, match="needs lists of words that textarena does not bring"):
        registry.create("environments", "textarena", {"id": "Wordle-v0"})

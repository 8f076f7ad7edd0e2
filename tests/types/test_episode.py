"""Turns made of a plain conversation."""

from __future__ import annotations

import pytest

from understudy.errors import FormatError
from understudy.types import Episode

TALK = [
    {"role": "user", "content": "1?"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "2?"},
    {"role": "assistant", "content": "2"},
]


def test_weights_are_those_of_the_messages_at_their_places() -> None:
    (trajectory,) = Episode.from_messages(TALK, weights=[9, 0, 9, 0.5]).trajectories
    assert [turn.weight for turn in trajectory.turns] == [0, 0.5]


@pytest.mark.parametrize("weights", [[0, 1], [1, 1, 1, 1, 1]])
def test_weights_for_other_than_all_messages_are_refused(weights: list[float]) -> None:
    with pytest.raises(FormatError, match=f"{len(weights)} weights for 4 messages"):
        Episode.from_messages(TALK, weights=weights)

"""The order of passes that all ranks of a sharded model agree on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from understudy.train.lockstep import common_order

PASSES = st.text(alphabet="fb", max_size=12)


@given(st.lists(PASSES, min_size=1, max_size=4))
def test_every_rank_finds_its_passes_in_the_common_order(own: list[str]) -> None:
    order = common_order(own)
    for passes in own:
        due = iter(order)
        assert all(any(found == wanted for found in due) for wanted in passes)
    assert max(map(len, own)) <= len(order) <= sum(map(len, own))


@given(PASSES, st.integers(0, 12))
def test_who_has_the_first_of_anothers_passes_costs_nothing(passes: str, stop: int) -> None:
    assert "".join(common_order([passes, passes[:stop], passes])) == passes


def test_ranks_without_passes_have_none_in_common() -> None:
    assert common_order(["", ""]) == []

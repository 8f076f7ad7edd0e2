"""Real episodes of an agent with tools, in numbers: all of them exact, and far fewer tokens than one row per turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import ROOT
from understudy.formats import read_episodes
from understudy.rendering import ModelTokenizer, RenderAccount, Renderer


@pytest.fixture(scope="module")
def account(qwen3: ModelTokenizer, test_data: Path) -> RenderAccount:
    folder = test_data / "corpus" / "tau_bench"
    mapping = ROOT / "examples" / "mappings" / "tau_bench.yaml"
    reader = read_episodes(
        folder / "gpt4o_airline_tasks00-39.jsonl.zst", f"{mapping}?tools.file={folder / 'tools.json'}"
    )
    account = RenderAccount()
    renderer = Renderer(qwen3, on_refusal="skip", verify_every=64)
    for episode in reader:
        account.add(renderer, episode, reader.place)
    return account


def test_every_turn_of_every_episode_is_exact(account: RenderAccount) -> None:
    assert (account.num_rows, account.num_turns, account.num_exact) == (160, 2166, 2166)
    assert account.is_clean
    assert account.num_flat_unknown == 0


def test_trees_cost_little_more_than_inexact_flat_rows_and_a_tenth_of_one_row_per_turn(account: RenderAccount) -> None:
    assert account.num_tree_tokens <= 1.2 * account.num_flat_tokens
    assert account.num_turn_tokens >= 9.9 * account.num_tree_tokens

"""What every policy of the table promises: it is made by name, says who it is, plays, and lets go."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.openai_server import OpenAIServer
from understudy import registry
from understudy.collect import Play, play_all
from understudy.environments.math import Math
from understudy.formats import write_episodes
from understudy.policies import Policy
from understudy.policies.scripted import ExpertPolicy
from understudy.types import Episode

MATH = {"kinds": ["expression"]}


def play(policy: Policy, num: int = 4) -> list[Episode]:
    tasks = Math(**MATH).tasks("train")
    episodes: list[Episode] = []

    async def run() -> None:
        which = [Play(id=str(i), task=tasks[i]) for i in range(num)]
        await play_all(which, lambda: Math(**MATH), {"agent": policy}, episodes.append, concurrency=num, max_turns=4)
        await policy.close()

    asyncio.run(run())
    return sorted(episodes, key=lambda episode: int(episode.id))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """The arguments with which each policy of the table is made here."""
    from understudy.models.tiny import tiny_model, train_tokenizer

    folder: Path = tmp_path_factory.mktemp("policies")
    write_episodes(folder / "recorded.jsonl", play(ExpertPolicy()))
    tokenizer = train_tokenizer(["Compute 1 + 2. The answer is 3."] * 9, vocab_size=300)
    tokenizer.save_pretrained(folder / "model")
    tiny_model("qwen3", vocab_size=len(tokenizer), hidden_size=16, num_layers=1).save_pretrained(folder / "model")
    with OpenAIServer() as server:
        yield {
            "expert": {},
            "random": {},
            "mixture": {"chance": 0.5},
            "human": {},
            "replay": {"source": str(folder / "recorded.jsonl")},
            "endpoint": {"model": "m", "base_url": server.base_url},
            "local": {"model": str(folder / "model"), "max_new_tokens": 4, "temperature": 1.0},
            "planner": {
                "policy": "random",
                "world_model": {"model": str(folder / "model"), "max_new_tokens": 4},
                "num_rollouts": 2,
                "depth": 2,
                "scorer": {"name": "text", "arguments": {"text": "That is right."}},
            },
        }


@pytest.mark.parametrize("name", registry.TABLES["policies"])
def test_a_policy_plays_the_same_again_and_reports_no_error(
    name: str, made: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for _ in range(2):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"It is 1.\n" * 4)))
        policy = registry.create("policies", name, made[name])
        episodes = play(policy)
        assert [episode.error for episode in episodes] == [None] * 4
        assert all(episode.trajectories[0].policy == name for episode in episodes)
        assert all(
            turn.action is not None and turn.action.role == "assistant"
            for e in episodes
            for _, _, turn in e.turns()
            if turn.action
        )
        found.append([episode.trajectories for episode in episodes])
        assert play(policy, 0) == []  # closing lets go of everything and does no harm
    assert found[0] == found[1]


@pytest.mark.parametrize("name", registry.TABLES["policies"])
def test_a_policy_says_who_it_is_in_json_and_always_the_same(name: str, made: dict[str, dict[str, Any]]) -> None:
    first, second = (registry.create("policies", name, made[name]).identity() for _ in range(2))
    assert json.loads(json.dumps(first)) == second
    assert first["name"] == name

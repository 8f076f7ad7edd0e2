"""A short campaign of hostile and broken programs; the long one is ``python -m benchmarks.hostile``."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.sandbox.hostile import FAMILIES, HostilePolicy, hostile_programs
from tests.sandbox.machine import ALL
from understudy.collect import Play, play_all
from understudy.environments.code import Code
from understudy.policies import EpisodeStart, Policy
from understudy.policies.scripted import ExpertPolicy
from understudy.sandbox import NO_ISOLATION, Isolation
from understudy.types import Episode

LONGEST_HOLD_UP_SECONDS = 2.0
"""Of the event loop; on a quiet machine it is 20 ms."""


class Mixed(HostilePolicy):
    """A hostile program in every other episode, and the expert in the rest."""

    def for_episode(self, start: EpisodeStart) -> Policy:
        """Return the policy of this episode."""
        is_expert = (start.seed or 0) >= len(self._programs)
        return ExpertPolicy().for_episode(start) if is_expert else super().for_episode(start)


@pytest.mark.parametrize("isolation", ALL)
def test_a_collection_goes_on_whatever_the_programs_do(isolation: Isolation) -> None:
    num = len(FAMILIES) if isolation == "bubblewrap" else 2 * len(FAMILIES)
    # Without isolation, the files of the host are open to be read, and a disk has no limit.
    programs = [
        text
        for name, text in hostile_programs(num, seed=1)
        if isolation != NO_ISOLATION or name not in ("host", "disk")
    ]

    def make() -> Code:
        return Code(level=1, isolation=isolation, cpu_seconds=0.1, wall_seconds=2.0)

    tasks = make().tasks("train")[: len(programs)]
    order = [seed for pair in zip(range(num), range(len(programs), 2 * num), strict=False) for seed in pair]
    plays = [Play(f"{seed}", "code", tasks[seed % len(programs)], seed) for seed in order if seed < 2 * len(programs)]
    episodes: list[Episode] = []
    hold_ups = [0.0]

    async def heartbeat() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            hold_ups.append(time.perf_counter() - before)

    async def collect() -> None:
        beat = asyncio.create_task(heartbeat())
        await play_all(plays, make, {"agent": Mixed(programs)}, episodes.append, concurrency=16)
        beat.cancel()

    asyncio.run(collect())
    assert [episode.error for episode in episodes if episode.error is not None] == []
    assert {episode.seed: episode.success for episode in episodes} == {
        play.seed: play.seed >= len(programs) for play in plays if play.seed is not None
    }
    assert max(hold_ups) < LONGEST_HOLD_UP_SECONDS


def test_there_are_programs_without_end_and_each_differs() -> None:
    programs = hostile_programs(20 * len(FAMILIES))
    assert programs == hostile_programs(20 * len(FAMILIES))
    assert len({text for _, text in programs}) > 10 * len(FAMILIES)
    assert not any("return x * 3 + 4" in text for _, text in programs)

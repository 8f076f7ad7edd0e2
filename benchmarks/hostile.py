"""What do hostile programs do to a collection? ``python -m benchmarks.hostile``

500 programs of generated families (loops, bombs, floods, crashes, attacks, and such as are merely broken) are handed in
as answers in the `code` environment, while in the same process and event loop ordinary episodes are collected. Counted:
how each program ended, how long the event loop was ever held up, and what is left behind. Compared, in rounds that take
turns: how many ordinary episodes a second are collected alone, with such programs, and beside a process of the lowest
priority that only counts, which is what any other work costs that asks nothing of the collector.

The ordinary episodes are of the `math` environment with its expert, because they cost nothing but the collector's own
work. Two things could make them fewer: work that the hostile programs give to the collector (then there are fewer in a
second of its CPU time), and CPU that they take from it (then there are fewer in a second all the same). Both are
shown. What other processes take counts against the second, so run it when nothing else runs.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

from tests.sandbox.hostile import HostilePolicy, hostile_programs
from understudy import registry
from understudy.collect import Play, play_all
from understudy.policies.scripted import ExpertPolicy
from understudy.types import JSON, Episode

HEARTBEAT_SECONDS = 0.005

CODE = {"cpu_seconds": 0.25, "wall_seconds": 5.0}


@dataclass(frozen=True)
class Mark:
    """How far the ordinary collection has come: episodes, seconds, seconds of the collector's CPU time."""

    num_episodes: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Rate:
    """How ordinary episodes were collected between two marks."""

    start: Mark
    end: Mark

    def __str__(self) -> str:
        return f"{self.per_second:,.0f}/s and {self.per_cpu_second:,.0f} a CPU second"

    @property
    def per_second(self) -> float:
        """Episodes in a second."""
        return (self.end.num_episodes - self.start.num_episodes) / (self.end.seconds - self.start.seconds)

    @property
    def per_cpu_second(self) -> float:
        """Episodes in a second of the collector's CPU time."""
        return (self.end.num_episodes - self.start.num_episodes) / (self.end.cpu_seconds - self.start.cpu_seconds)


@dataclass
class Tally:
    """What has happened so far."""

    num_ordinary: int = 0
    is_over: bool = False
    hostile: list[Episode] = field(default_factory=list)
    longest_hold_up_seconds: float = 0.0

    def mark(self) -> Mark:
        """Return how far the ordinary collection has come."""
        return Mark(self.num_ordinary, time.perf_counter(), time.process_time())


def tasks_of(name: str) -> list[JSON]:
    """Return some tasks of an environment."""
    return list(registry.create("environments", name, {}).tasks("train")[:200])


async def ordinary(tally: Tally) -> None:
    """Collect ordinary episodes until it is over."""
    tasks = tasks_of("math")
    endless = (Play(f"math-{i}", "math", tasks[i % len(tasks)], i) for i in itertools.count())

    def count(episode: Episode) -> None:
        assert episode.success, episode.error
        tally.num_ordinary += 1

    await play_all(
        itertools.takewhile(lambda _: not tally.is_over, endless),
        lambda: registry.create("environments", "math", {}),
        {"agent": ExpertPolicy()},
        count,
        concurrency=32,
    )


async def hostile(tally: Tally, tasks: list[JSON], programs: list[str]) -> None:
    """Collect one episode with each program."""
    await play_all(
        [Play(f"code-{i}", "code", tasks[i % len(tasks)], i) for i in range(len(programs))],
        lambda: registry.create("environments", "code", CODE),
        {"agent": HostilePolicy(programs)},
        tally.hostile.append,
        concurrency=32,
    )


async def heartbeat(tally: Tally) -> None:
    """Note how long the event loop is held up."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(HEARTBEAT_SECONDS)
        held_up = time.perf_counter() - before - HEARTBEAT_SECONDS
        tally.longest_hold_up_seconds = max(tally.longest_hold_up_seconds, held_up)


@contextmanager
def counting() -> Iterator[None]:
    """Keep a core busy at the lowest priority for the length of the block."""
    command = [sys.executable, "-c", "import itertools, os\nos.nice(19)\nfor _ in itertools.count(): pass"]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


@dataclass(frozen=True)
class Round:
    """How ordinary episodes were collected: alone, with hostile programs, and beside a process that counts."""

    alone: Rate
    hostile: Rate
    counting: Rate


async def compare(programs: list[str], num_rounds: int, seconds: float) -> tuple[Tally, list[Round]]:
    """Return the tally, and what was measured in each round."""
    tally, rounds = Tally(), []
    share = -(-len(programs) // num_rounds)
    tasks = tasks_of("code")
    collection = asyncio.create_task(ordinary(tally))
    await asyncio.sleep(1.0)
    for number in range(num_rounds):
        start = tally.mark()
        await asyncio.sleep(seconds)
        middle = tally.mark()
        beat = asyncio.create_task(heartbeat(tally))
        await hostile(tally, tasks, programs[number * share : (number + 1) * share])
        beat.cancel()
        end = tally.mark()
        with counting():
            await asyncio.sleep(1.0)
            before = tally.mark()
            await asyncio.sleep(seconds)
            beside = Rate(before, tally.mark())
        rounds.append(Round(Rate(start, middle), Rate(middle, end), beside))
    tally.is_over = True
    await collection
    return tally, rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement without hostile programs")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    programs = [program for _, program in hostile_programs(args.programs, args.seed)]
    descriptors, started = len(os.listdir("/proc/self/fd")), time.perf_counter()
    tally, rounds = asyncio.run(compare(programs, args.rounds, args.seconds))
    wall = time.perf_counter() - started
    ended = Counter(
        "a fault: " + episode.error if episode.error else "accepted" if episode.success else "rejected"
        for episode in tally.hostile
    )
    print(f"{len(tally.hostile)} hostile programs in {wall:.0f} s: {dict(ended)}")
    print(f"longest time that the event loop was held up: {1000 * tally.longest_hold_up_seconds:.0f} ms")
    print(f"descriptors left open: {len(os.listdir('/proc/self/fd')) - descriptors}")
    print(f"memory of the collector at its peak: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    for number, one in enumerate(rounds):
        seconds = one.hostile.end.seconds - one.hostile.start.seconds
        print(f"round {number + 1}: {one.alone}; with hostile programs, in {seconds:.0f} s, {one.hostile}; "
              f"beside a process that counts {one.counting}")  # fmt: skip
    for what in ("per_second", "per_cpu_second"):
        for beside in ("hostile", "counting"):
            change = median(getattr(getattr(one, beside), what) / getattr(one.alone, what) - 1 for one in rounds)
            print(f"median change of ordinary episodes {what.replace('_', ' ')}, {beside}: {change:+.1%}")


if __name__ == "__main__":
    main()

"""How fast are episodes collected from an endpoint? ``python benchmarks/collect.py``

A local OpenAI-compatible server, in a process of its own, answers every request after 50 ms. Two bounds hold for the
number of requests a second: the reply time (concurrency / 50 ms), and the client's CPU (one core / CPU time of a
request, measured in the same run). The figure is what was reached, as a share of the lower of the two. Everything is in
it: the environment, the `openai` client, records, journal, output and statistics.

Time that other programs take from the client's core counts against the figure, so run it on a quiet machine. How much
of a core a busy process gets is measured before and after; below 95% the figure for what it got is printed too.
"""

from __future__ import annotations

import argparse
import io
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from understudy.collect import CollectConfig, collect
from understudy.config import config_from_dict
from understudy.curate import EpisodeStatistics

ROOT = Path(__file__).resolve().parents[1]
MATH = {"kinds": ["expression"], "max_operations": 4}


@contextmanager
def serving(delay_seconds: float) -> Iterator[str]:
    """Run the server; give its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "tests.openai_server", str(port), str(delay_seconds)], cwd=ROOT)
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()


def run(base_url: str, folder: str, num_episodes: int, concurrency: int) -> tuple[int, float, float]:
    """Collect; return the number of requests, wall seconds and CPU seconds."""
    config = config_from_dict(
        CollectConfig,
        {
            "environment": {"name": "math", "arguments": MATH},
            "policy": {"name": "endpoint", "arguments": {"model": "m", "base_url": base_url}},
            "num_episodes": num_episodes,
            "concurrency": concurrency,
            "output_dir": folder,
        },
    )
    wall, cpu = time.perf_counter(), time.process_time()
    result = collect(config, statistics=EpisodeStatistics, console=Console(file=io.StringIO()))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert result.num_successes == num_episodes, result
    return 2 * num_episodes, wall, cpu


def share_of_a_core(cpu_seconds: float = 0.5) -> float:
    """Return how much of a core a busy process gets on this machine just now."""
    wall, cpu = time.perf_counter(), time.process_time()
    while time.process_time() - cpu < cpu_seconds:
        pass
    return cpu_seconds / (time.perf_counter() - wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=3000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--delay-seconds", type=float, default=0.05)
    args = parser.parse_args()
    with serving(args.delay_seconds) as base_url, tempfile.TemporaryDirectory() as folder:
        run(base_url, f"{folder}/warm", 50, 50)
        before = share_of_a_core()
        requests, wall, cpu = run(base_url, f"{folder}/out", args.episodes, args.concurrency)
        share = (before + share_of_a_core()) / 2
    by_reply, by_cpu = args.concurrency / args.delay_seconds, requests / cpu
    counts = f"{args.episodes:,} episodes, {requests:,} requests, {args.concurrency} at once"
    print(f"{counts}: {wall:.2f} s wall, {cpu:.2f} s CPU")
    print(f"reached           {requests / wall:8,.0f} requests/s  ({1000 * cpu / requests:.2f} ms CPU a request)")
    print(f"bound, reply time {by_reply:8,.0f} requests/s")
    print(f"bound, client CPU {by_cpu:8,.0f} requests/s")
    print(f"share of the lower bound: {requests / wall / min(by_reply, by_cpu):.1%}")
    if share < 0.95:
        got = requests / wall / min(by_reply, by_cpu * share)
        print(f"a busy process gets {share:.0%} of a core here just now; of the bound for that much CPU: {got:.1%}")


if __name__ == "__main__":
    main()

"""Kill a collection at random moments, again and again, and see that it ends complete.

``python -m tests.collect.kill_campaign`` does it ten times to 2,000 episodes; the tests do a quick one.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from understudy.collect.collection import JOURNAL
from understudy.formats import read_episodes

LINE_BYTES = 1200
"""About what a line of the journal has here: so the kills are spread over the whole collection."""

COLLECT_IN_A_CHILD = """
import sys
from understudy.collect import CollectConfig, collect
from understudy.config import config_from_dict
config = {"environment": {"name": "math"}, "policy": {"name": "expert"}, "num_episodes": int(sys.argv[2]),
          "output_dir": sys.argv[1], "concurrency": 16}
print(collect(config_from_dict(CollectConfig, config)).num_played)
"""


def kill_and_resume(folder: Path, *, num_episodes: int, num_kills: int, seed: int) -> list[int]:
    """Kill a collection at random moments, let it finish, check it, and return where it stood at each kill."""
    rng = random.Random(seed)
    stood: list[int] = []
    command = [sys.executable, "-c", COLLECT_IN_A_CHILD, str(folder), str(num_episodes)]
    journal = folder / JOURNAL
    for _ in range(num_kills):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        at = (journal.stat().st_size if journal.exists() else 0) + rng.randrange(
            2 * LINE_BYTES * num_episodes // num_kills
        )
        while child.poll() is None and not (journal.exists() and journal.stat().st_size > at):
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        child.wait()
        stood.append(journal.read_bytes().count(b"\n") if journal.exists() else -1)
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("episodes_*.jsonl")
    found = list(read_episodes(str(path), "native"))
    assert [episode.metadata["task_index"] for episode in found] == list(range(num_episodes))
    assert len({episode.id for episode in found}) == num_episodes
    assert all(episode.success and episode.error is None for episode in found)
    assert not journal.exists()
    return stood


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stood = kill_and_resume(Path(folder) / "out", num_episodes=args.episodes, num_kills=args.kills, seed=args.seed)
    print(f"seed {args.seed}: killed when {stood} episodes were there")
    print(f"all {args.episodes} are there in the end, each once")

"""What tests of adapters with an expert share: its episodes go through `understudy collect` and `curate`."""

from __future__ import annotations

from pathlib import Path

from understudy.cli.main import main
from understudy.formats import read_episodes
from understudy.types import Episode


def curated(folder: Path, *settings: str, num: int = 4) -> list[Episode]:
    """Return what curating leaves of the successes of `num` episodes of the expert, collected with these settings."""
    collected, chosen = folder / "collected", folder / "chosen"
    shared = ("policy.name=expert", f"num_episodes={num}", "concurrency=2", f"output_dir={collected}")
    assert main(["collect", *settings, *shared]) == 0
    assert main(["curate", f"path={collected}", f"output_dir={chosen}", "only_success=true", "validation_split=0"]) == 0
    return list(read_episodes(chosen))

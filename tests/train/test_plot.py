from __future__ import annotations

import json
from pathlib import Path

from matplotlib import image

from understudy.train.plot import plot_loss


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def colours(path: Path) -> set[tuple[int, ...]]:
    """Return the saturated colours of an image, roughly: which curves are drawn."""
    pixels = (image.imread(path)[..., :3] * 4).round().astype(int).reshape(-1, 3)
    return {tuple(pixel) for pixel in pixels.tolist() if max(pixel) - min(pixel) >= 2}


def test_training_and_validation_losses_are_drawn(tmp_path) -> None:
    train = [{"step": n, "loss": 5 - n / 10} for n in range(1, 30)]
    both = [*train, {"step": 10, "eval_loss": 4.2, "eval_sources": {}}, {"step": 20, "eval_loss": 3.4}]
    plot_loss(write(tmp_path / "train.jsonl", train), tmp_path / "train.png")
    plot_loss(write(tmp_path / "both.jsonl", both), tmp_path / "both.png")
    assert colours(tmp_path / "train.png")
    assert colours(tmp_path / "train.png") < colours(tmp_path / "both.png")


def test_losses_that_were_not_finite_leave_a_gap(tmp_path) -> None:
    rows = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": None}, {"step": 3, "loss": 2.0}]
    plot_loss(write(tmp_path / "m.jsonl", rows), tmp_path / "loss.png")
    assert (tmp_path / "loss.png").exists()


def test_nothing_is_drawn_of_nothing(tmp_path) -> None:
    plot_loss(write(tmp_path / "m.jsonl", []), tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()

"""The model plays held-out tasks while it is trained, and training does not notice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training import metrics, same, train, weights
from understudy.environments.math import Math
from understudy.errors import ConfigError
from understudy.formats import read_episodes
from understudy.train.plot import plot_loss


class Disturbing(Math):
    """Uses up torch's random numbers, and seeds them anew, as careless environments do."""

    def on_text(self, text: str) -> Any:
        torch.manual_seed(7)
        torch.rand(3)
        return super().on_text(text)


class Faulty(Math):
    """Fails at every answer."""

    def on_text(self, text: str) -> Any:
        raise OSError("disk")


DISTURBING, FAULTY = f"{__name__}:Disturbing", f"{__name__}:Faulty"
PLAYING = {"environment": {"name": DISTURBING}, "num_tasks": 4, "arguments": {"max_new_tokens": 6}, "max_turns": 2}
STEPS = {"max_steps": 4, "eval_steps": 2, "save_steps": 4}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize(
    "settings",
    [
        {"lora": {"lora_r": 4, "lora_dropout": 0.3}},
        {"train": STEPS | {"gradient_checkpointing": True}},
        {"train": STEPS | {"layout": "rows"}},
    ],
    ids=["lora with dropout", "gradient checkpointing", "rows"],
)
def test_playing_changes_no_loss_and_no_weight(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    shared = {"train": STEPS, "data": {"validation_split": 0.3}} | settings
    train(base, tmp_path / "without", **shared)
    train(base, tmp_path / "with", evaluation=PLAYING, **shared)
    for key in ("loss", "grad_norm", "eval_loss"):
        assert metrics(tmp_path / "with", key) == metrics(tmp_path / "without", key)
    assert same(weights(tmp_path / "with" / "final"), weights(tmp_path / "without" / "final"))


def test_scores_are_measured_before_on_the_way_and_at_the_end(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path / "run", evaluation=PLAYING, train=STEPS)
    played = [row for row in rows(tmp_path / "run") if "eval_success" in row]
    assert [row["step"] for row in played] == [0, 2, 4]
    assert played[0].keys() >= {"eval_success_low", "eval_reward", "eval_turns", "eval_rollout_seconds"}
    assert (played[0]["eval_num_episodes"], played[0]["eval_num_errors"]) == (4, 0)
    for step in (0, 2, 4):
        episodes = list(read_episodes(tmp_path / "run" / "rollouts" / f"step_{step:06d}.jsonl"))
        assert [episode.metadata["task_index"] for episode in episodes] == [0, 1, 2, 3]
        assert {episode.split for episode in episodes} == {"validation"}


def test_success_is_told_for_each_environment_of_a_mix(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "understudy.train")
    mix = {"name": "mix", "arguments": {"environments": {"sums": "math", "odd": DISTURBING}}}
    train(base, tmp_path / "run", evaluation=PLAYING | {"environment": mix}, train=STEPS)
    for name in ("eval_success", "eval_success/sums", "eval_success/odd"):
        assert len(metrics(tmp_path / "run", name)) == 3
    assert "success/odd 0.0%, success/sums 0.0%" in caplog.text


def test_what_plays_is_the_model_as_it_is_after_that_step(base: Path, tmp_path: Path) -> None:
    """The log probabilities recorded while playing are those of the saved model; so it played with normal attention."""
    from transformers import AutoModelForCausalLM

    train(base, tmp_path / "run", evaluation=PLAYING, train=STEPS | {"learning_rate": 1e-2})
    for folder, step, is_same in (("final", 4, True), ("final", 0, False)):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / folder)
        (episode, *_) = read_episodes(tmp_path / "run" / "rollouts" / f"step_{step:06d}.jsonl")
        sampled = episode.trajectories[0].turns[0].sampled
        ids = torch.tensor([[*sampled.prompt_ids, *sampled.output_ids]])
        with torch.no_grad():
            logprobs = model(ids).logits[0, len(sampled.prompt_ids) - 1 : -1].log_softmax(-1)
        found = logprobs.gather(1, torch.tensor(sampled.output_ids)[:, None])[:, 0]
        assert torch.allclose(found, torch.tensor(sampled.logprobs), atol=1e-4) == is_same


def test_a_faulty_environment_does_not_end_training(base: Path, tmp_path: Path) -> None:
    result = train(base, tmp_path / "run", evaluation=PLAYING | {"environment": {"name": FAULTY}}, train=STEPS)
    assert result.step == 4
    assert metrics(tmp_path / "run", "eval_num_errors") == [4, 4, 4]
    assert metrics(tmp_path / "run", "eval_success") == []
    assert "4 of 4 episodes ended by a fault" in (tmp_path / "run" / "run.log").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"environment": {"name": "mth"}}, "Did you mean 'math'"),
        ({"arguments": {"max_tokens": 3}}, "no argument 'max_tokens'"),
        ({"arguments": {"chat_template": "x"}}, "chat_template is settled by the training itself"),
        ({"num_tasks": 5000}, "the validation split has 1,000 tasks"),
        ({"policies": {"bob": {"name": "random"}}}, "the environment's agents are agent"),
    ],
)
def test_what_cannot_be_played_is_refused_before_training(
    base: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(base, tmp_path / "run", evaluation=PLAYING | changes)
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_may_play_otherwise_and_keeps_what_was_played(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path / "run", evaluation=PLAYING, train=STEPS | {"max_steps": 2})
    longer = STEPS | {"max_steps": 4}
    train(base, tmp_path / "run", evaluation=PLAYING | {"num_tasks": 2}, train=longer, resume="auto")
    assert metrics(tmp_path / "run", "eval_num_episodes") == [4, 4, 2]


def test_the_plot_shows_success_beside_the_loss(tmp_path: Path) -> None:
    lines = [{"step": 0, "eval_success": 0.1}, {"step": 1, "loss": 2.0}, {"step": 2, "eval_success": 0.9}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plot_loss(tmp_path / "m.jsonl", tmp_path / "with.png")
    (tmp_path / "m.jsonl").write_text(json.dumps(lines[1]) + "\n")
    plot_loss(tmp_path / "m.jsonl", tmp_path / "without.png")
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()

"""The config of playing within training; see `config` for the whole."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from understudy.config import Component, ConfigModel


class EvaluationSection(ConfigModel):
    """Let the model play held-out tasks whenever it is validated, as policy `local` would. Changes no loss."""

    environment: Component
    """What it acts in: math, grid, tools, function_gym, or your own."""

    arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments of policy `local`, such as max_new_tokens, temperature or max_batch_size. How the model is loaded and
    asked is as it is trained."""

    policies: dict[str, Component] = Field(default_factory=dict)
    """Who acts for agents that are not the model, by the agent's name."""

    split: Literal["train", "validation", "test"] = "validation"
    """The tasks to play."""

    num_tasks: int = Field(20, ge=1)
    """How many of them are played, the same ones every time."""

    samples_per_task: int = Field(1, ge=1)
    """How often each is played."""

    max_turns: int | None = Field(50, ge=1)
    """An episode is truncated when an agent has acted so often; null for no limit."""

    seed: int = 0
    """Seed of the environments: task i is played with seed + i."""

    concurrency: int = Field(64, ge=1)
    """How many episodes are under way at the same time."""

    episode_timeout_seconds: float | None = Field(None, gt=0)
    """An episode that takes longer ends by a fault; null for no limit."""

    @field_validator("arguments")
    @classmethod
    def _of_playing_only(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        loading = ("model", "device", "dtype", "trust_remote_code", "chat_template", "profile")
        settled = [name for name in loading if name in arguments]
        if settled:
            raise ValueError(f"{', '.join(settled)} is settled by the training itself; leave it out")
        return arguments

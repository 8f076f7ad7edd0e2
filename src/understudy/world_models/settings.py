"""The config of a world model that is asked what an environment would answer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from understudy.config import ConfigModel
from understudy.rendering import ServerProfile


class WorldModelSettings(ConfigModel):
    """A model that was trained to predict observations, by objective world_model or combined."""

    model: str
    """Model folder, adapter folder, folder of a run, or hub name."""

    max_new_tokens: int = Field(512, ge=1)
    """Most tokens of an observation; a longer one is cut off there."""

    temperature: float = Field(0.0, ge=0)
    """0 writes the likeliest observation."""

    top_p: float = Field(1.0, gt=0, le=1)
    """Draw from the likeliest tokens that together have this probability."""

    top_k: int = Field(0, ge=0)
    """Draw from so many likeliest tokens; 0 for all."""

    max_batch_size: int = Field(32, ge=1)
    """Most observations that are written together."""

    max_context: int | None = Field(None, ge=2)
    """Longest conversation with the observation, in tokens; by default what the model's config says."""

    chat_template: str | None = None
    """File of a chat template in place of the model's own."""

    profile: ServerProfile = ServerProfile()
    """How messages are prepared, as in the training of the model."""

    device: str | None = None
    """Such as cpu or cuda; by default a GPU where there is one."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What the weights are held in; `auto` is what they were saved in."""

    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless you have read that code."""

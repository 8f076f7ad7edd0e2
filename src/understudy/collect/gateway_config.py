"""The config of a recording endpoint."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from understudy.config import ConfigModel


class GatewayConfig(ConfigModel):
    """An OpenAI-compatible endpoint that passes calls on and writes down what comes of them."""

    output_dir: str
    """Folder for the episodes, their statistics, config and provenance. A recording that was there goes on."""

    base_url: str | None = None
    """Where calls are passed on to, such as http://localhost:8000/v1; by default what the environment variable
    OPENAI_BASE_URL says, else OpenAI's."""

    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key for it. Where that is not set, the caller's own key is passed on. Keys
    are written down nowhere."""

    model: str | None = None
    """The model to ask, whatever the caller asks for; null for what the caller asks for."""

    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further keys of every request that is passed on."""

    token_ids: Literal["none", "vllm", "sglang"] = "none"
    """Ask the server for the ids and log probabilities of what was sampled, in its own way. Training then uses these
    very ids."""

    host: str = "127.0.0.1"
    """Address to listen on. Others than this machine's own let everybody use your key who can reach it."""

    port: int = Field(8100, ge=0, le=65535)
    """Port to listen on; 0 for a free one."""

    timeout_seconds: float = Field(600.0, gt=0)
    """For one call."""

    environment: str | None = None
    """Name of the environment, for the record."""

    split: Literal["train", "validation", "test"] = "train"
    """The split that the tasks are of, for the record."""

    output_format: Literal["jsonl", "jsonl.zst", "parquet"] = "jsonl"
    """Kind of file that the episodes are in at the end."""

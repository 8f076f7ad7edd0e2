"""A model behind an endpoint as a judge of what several sides said.

Whatever goes wrong with the judge is a fault, and never counts against those who are judged.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from understudy.config import ConfigModel
from understudy.errors import ConfigError, EnvironmentFault
from understudy.types import JSON

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MAX_POINTS = 10

NUM_ASKED = 3
"""So often a judge is asked before a verdict that cannot be read is a fault."""

FATAL_STATUSES = frozenset({401, 403, 404})
"""Wrong key or unknown model: it would be so in every episode."""

_OBJECT = re.compile(r"\{[^{}]*\}")


class JudgeConfig(ConfigModel):
    """Which model judges, and where it is."""

    model: str
    """The model's name at the server."""

    base_url: str | None = None
    """Such as http://localhost:8000/v1; by default OpenAI's."""

    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key."""

    temperature: float | None = Field(0.0, ge=0)
    """Sent with every request; null for the server's default."""

    extra_body: dict[str, JSON] = Field(default_factory=dict)
    """Further keys of the request."""

    timeout_seconds: float = Field(120.0, gt=0)
    """For one request."""

    max_retries: int = Field(8, ge=0)
    """How often a request is tried again, after waits that double, when the server is busy or cannot be reached."""


class EndpointJudge:
    """Gives each side points, by what a model says.

    Raises:
        ConfigError: there is no key where one is needed.
    """

    def __init__(self, config: JudgeConfig) -> None:
        self._config = config
        self._api_key = os.environ.get(config.api_key_env, "" if config.base_url is None else "none")
        if not self._api_key:
            raise ConfigError(f"judge: set the environment variable {config.api_key_env} to the API key, or base_url")
        self._client: AsyncOpenAI | None = None

    async def points(self, instructions: str, transcript: str, sides: Sequence[str]) -> dict[str, float]:
        """Return the points of each side, from 0 to `MAX_POINTS`.

        Args:
            instructions: what is judged, and by what rules.
            transcript: what was said.
            sides: whom to judge.

        Raises:
            EnvironmentFault: the endpoint failed, or its verdict cannot be read.
            ConfigError: the endpoint refuses key or model.
        """
        example = json.dumps(dict.fromkeys(sides, 0))
        asked = f"{instructions} Give each side 0 to {MAX_POINTS} points. End with a JSON object like {example}."
        for _ in range(NUM_ASKED):
            reply = await self._ask(asked, transcript)
            points = read_points(reply, sides)
            if points is not None:
                return points
        raise EnvironmentFault(f"the judge's verdict cannot be read: {reply!r:.200}")

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _ask(self, instructions: str, transcript: str) -> str:
        import openai

        config = self._config
        try:
            reply = await self._open_client().chat.completions.create(
                model=config.model,
                messages=[{"role": "system", "content": instructions}, {"role": "user", "content": transcript}],
                temperature=openai.omit if config.temperature is None else config.temperature,
                extra_body=config.extra_body,
            )
        except openai.APIStatusError as error:
            text = f"judge {config.model}: the server answered {error.status_code}: {error.message}"
            if error.status_code in FATAL_STATUSES:
                raise ConfigError(text) from error
            raise EnvironmentFault(text) from error
        except openai.OpenAIError as error:
            raise EnvironmentFault(f"judge {config.model}: {type(error).__name__}: {error}") from error
        except ValueError:  # not JSON at all
            return ""
        try:
            return reply.choices[0].message.content or ""
        except (AttributeError, LookupError, TypeError):  # the client does not check what servers send
            return ""

    def _open_client(self) -> AsyncOpenAI:
        if self._client is None:
            from openai import AsyncOpenAI, DefaultAioHttpClient

            config = self._config
            self._client = AsyncOpenAI(
                base_url=config.base_url,
                api_key=self._api_key,
                max_retries=config.max_retries,
                timeout=config.timeout_seconds,
                http_client=DefaultAioHttpClient(timeout=config.timeout_seconds),
            )
        return self._client


def read_points(reply: str, sides: Sequence[str]) -> dict[str, float] | None:
    """Return the points in the last JSON object of a reply; None where it does not give each side its points."""
    objects = _OBJECT.findall(reply)
    try:
        given = json.loads(objects[-1]) if objects else {}
        points = {side: float(given[side]) for side in sides}
    except (ValueError, TypeError, KeyError):
        return None
    return points if all(math.isfinite(p) and 0 <= p <= MAX_POINTS for p in points.values()) else None

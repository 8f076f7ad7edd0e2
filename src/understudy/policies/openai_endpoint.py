"""The endpoint policy: any server that speaks OpenAI's chat completions (vLLM, SGLang, OpenAI, DeepSeek, …).

The `openai` package sends and receives; patience is ours. What a retry can save is tried again, so a busy server, a cut
connection or a broken reply costs time and no episode. What no retry can save ends the episode, or, where it would end
every episode alike (a wrong key, an unknown model), the whole collection.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from understudy.errors import ConfigError, FormatError, PolicyError
from understudy.types import JSON, Message, message_from_openai, tools_to_openai

from .base import Action, Context, ContextLengthExceeded, Policy, Usage, with_call_ids
from .patience import Patience, Retryable, retry_after_seconds
from .server_tokens import ASKING_FOR_TOKENS, read_sampled

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

RETRYABLE_STATUSES = frozenset({408, 409, 425, 429})
"""Besides 500 and above."""

FATAL_STATUSES = frozenset({401, 403, 404})

_TOO_LONG = ("context_length_exceeded", "context length", "maximum context", "max_model_len", "too many tokens")

OUT_OF_CREDIT = "insufficient_quota"


class EndpointPolicy(Policy):
    """Plays a model behind an OpenAI-compatible endpoint.

    Args:
        model: the model's name at the server.
        base_url: such as ``http://localhost:8000/v1``; by default what the environment variable ``OPENAI_BASE_URL``
            says, else OpenAI's.
        api_key_env: environment variable that holds the key. Keys are never read from a config, nor written down.
        temperature, top_p, max_tokens, max_completion_tokens: sent when given; else the server's defaults hold.
        send_seed: send a seed of its own with every request, for servers that sample repeatably.
        send_reasoning: send the reasoning of earlier turns along, for servers that take ``reasoning_content``.
        token_ids: ask for the ids and log probabilities of what was sampled, in the way of ``vllm`` (0.10.2 or later)
            or ``sglang`` (0.5.13 or later). What a server gives unasked is recorded all the same.
        extra_body: further keys of the request, such as ``{"chat_template_kwargs": {"enable_thinking": false}}``.
        timeout_seconds: for one request.
        max_retries: how often a request is tried again.
        min_wait_seconds, max_wait_seconds: bounds of the wait before a retry; see `Patience`.
        requests_per_minute: most requests in a minute, evenly spaced; null for no limit.

    Raises:
        ConfigError: there is no key where one is needed, or a number is out of range.
    """

    name = "endpoint"

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        max_completion_tokens: int | None = None,
        send_seed: bool = False,
        send_reasoning: bool = False,
        token_ids: Literal["none", "vllm", "sglang"] = "none",
        extra_body: Mapping[str, JSON] | None = None,
        timeout_seconds: float = 600.0,
        max_retries: int = 8,
        min_wait_seconds: float = 0.5,
        max_wait_seconds: float = 60.0,
        requests_per_minute: float | None = None,
    ) -> None:
        if token_ids not in ASKING_FOR_TOKENS:
            raise ConfigError(f"token_ids is {token_ids!r}; it is one of {', '.join(ASKING_FOR_TOKENS)}")
        if timeout_seconds <= 0:
            raise ConfigError(f"timeout_seconds is {timeout_seconds}; it is above 0")
        self._api_key = os.environ.get(api_key_env, "" if base_url is None else "none")
        if not self._api_key:
            raise ConfigError(f"set the environment variable {api_key_env} to the API key, or give base_url")
        self._model = model
        self._base_url = base_url
        sampling = {
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "max_completion_tokens": max_completion_tokens,
        }
        self._sampling = {name: value for name, value in sampling.items() if value is not None}
        self._send_seed = send_seed
        self._send_reasoning = send_reasoning
        self._token_ids = token_ids
        self._extra_body = dict(extra_body or {})
        self._timeout_seconds = timeout_seconds
        self._patience = Patience(
            max_retries=max_retries,
            min_wait_seconds=min_wait_seconds,
            max_wait_seconds=max_wait_seconds,
            requests_per_minute=requests_per_minute,
        )
        self._client: AsyncOpenAI | None = None

    def identity(self) -> JSON:
        """Name the model and how it samples, not where it is."""
        return {"name": self.name, "model": self._model, **self._sampling, "extra_body": self._extra_body}

    async def act(self, context: Context) -> Action:
        """Ask the server for the turn.

        Raises:
            PolicyError: no retry helped.
            ContextLengthExceeded: the conversation is too long for the model.
            ConfigError: the server refuses key or model.
        """
        request: dict[str, Any] = {
            "model": self._model,
            "messages": [self._message_to_send(message) for message in context.messages],
            **self._sampling,
        }
        if context.tools:
            request["tools"] = tools_to_openai(context.tools)
        if self._send_seed:
            request["seed"] = context.seed % 2**31
        request |= {**ASKING_FOR_TOKENS[self._token_ids], **self._extra_body}
        return await self._patience.insist(lambda: self._try(request, context))

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _try(self, request: Mapping[str, Any], context: Context) -> Action:
        """Send once, and read the reply."""
        import openai

        try:
            # Not chat.completions.create: that would walk all messages again to convert Python types, which there are
            # none of, and which takes more time than all the rest of a request.
            reply = await self._open_client().post("/chat/completions", cast_to=object, body=request)
        except openai.APIConnectionError as error:  # time-outs among them
            raise Retryable(self._disconnected(error)) from error
        except openai.APIStatusError as error:
            raise self._explained(error) from error
        except UnicodeEncodeError as error:  # before anything was sent, and so each time
            raise PolicyError(f"the conversation holds half of a UTF-16 pair, which cannot be sent: {error}") from error
        except ValueError as error:
            raise Retryable(f"the reply is not JSON: {error}") from error
        return self._action(reply, context)

    def _open_client(self) -> AsyncOpenAI:
        if self._client is None:
            from openai import AsyncOpenAI, DefaultAioHttpClient

            self._client = AsyncOpenAI(
                base_url=self._base_url,
                api_key=self._api_key,
                max_retries=0,
                timeout=self._timeout_seconds,
                http_client=DefaultAioHttpClient(timeout=self._timeout_seconds),
            )
        return self._client

    def _disconnected(self, error: BaseException) -> str:
        """Say why there is no reply. The transport calls some refused connections time-outs, so its cause is asked."""
        while error.__cause__ is not None:
            error = error.__cause__
        if isinstance(error, TimeoutError):
            return f"no reply within {self._timeout_seconds:g} seconds"
        return f"the connection failed: {type(error).__name__}: {error}"

    def _explained(self, error: APIStatusError) -> Exception:
        """Return what a status other than success means for the episode."""
        status, text = error.status_code, f"the server answered {error.status_code}: {error.message}"
        if error.code == OUT_OF_CREDIT or status in FATAL_STATUSES:
            return ConfigError(f"policy {self.name} ({self._model}): {text}")
        if status in RETRYABLE_STATUSES or status >= 500:
            return Retryable(text, after_seconds=retry_after_seconds(error.response.headers))
        if status in (400, 413, 422) and any(words in text.lower() or words == error.code for words in _TOO_LONG):
            return ContextLengthExceeded(text)
        return PolicyError(text)

    def _message_to_send(self, message: Message) -> dict[str, JSON]:
        """Return the dict that servers take: arguments as JSON text, and no reasoning unless it is asked for."""
        row = message.to_openai()
        if not self._send_reasoning:
            row.pop("reasoning_content", None)
        for call in row.get("tool_calls", ()):
            if not isinstance(call["function"]["arguments"], str):
                call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        if row["content"] is None and not message.tool_calls:
            row["content"] = ""
        return row

    def _action(self, reply: Any, context: Context) -> Action:
        """Read a reply.

        Raises:
            Retryable: it is broken.
        """
        try:
            choice = reply["choices"][0]
            message = message_from_openai({"role": "assistant"} | _without_nulls(choice["message"]))
            finish_reason = choice.get("finish_reason")
            usage = reply.get("usage") or {}
            counts = Usage(usage.get("prompt_tokens"), usage.get("completion_tokens"))
            sampled = read_sampled(reply, choice)
        except (ValueError, LookupError, TypeError, AttributeError, FormatError) as error:
            raise Retryable(f"the reply is broken ({type(error).__name__}: {error}): {reply!r:.200}") from error
        if finish_reason == "abort":
            raise Retryable("the server aborted the request")
        if sampled is None and self._token_ids != "none":
            raise PolicyError(f"the server gives no token ids in the way of {self._token_ids}; is it recent enough?")
        annotations = {"finish_reason": finish_reason} if finish_reason is not None else {}
        return Action(with_call_ids(message, context.messages), sampled, counts, annotations)


def _without_nulls(message: Mapping[str, JSON]) -> dict[str, JSON]:
    return {key: value for key, value in message.items() if value is not None and value != []}

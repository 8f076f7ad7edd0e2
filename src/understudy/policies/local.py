"""The local policy: a Hugging Face model on this machine, playing many episodes at once.

A prompt is made by `understudy.rendering`, so it has the very ids that training on the episode computes. Tool calls are
read as the model's own template writes them. The ids and log probabilities of every turn are recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config import config_from_dict
from understudy.errors import ConfigError, PolicyError
from understudy.rendering import ModelTokenizer, Renderer, ServerProfile, load_tokenizer
from understudy.rendering.call_syntax import CallSyntax, ParsedOutput, derive_call_syntax, split_thinking
from understudy.rendering.continuation import THINKING_BLOCKS
from understudy.rendering.refusal import TurnRefused
from understudy.types import JSON, Message, SampledTokens, Tool, tools_to_openai

from .base import Action, Context, ContextLengthExceeded, EpisodeStart, Policy, Usage, with_call_ids
from .generation import Generated, Generator, Request, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from understudy.models.load import DtypeName

GATHER_SECONDS = 0.002
"""So long a batch waits for more requests before it starts."""


class LocalPolicy(Policy):
    """Plays a model.

    Args:
        model: model folder, adapter folder, folder of a run, or hub name.
        max_new_tokens: most tokens of a turn.
        temperature: 0 takes the likeliest token.
        top_p: draw from the likeliest tokens that together have this probability.
        top_k: draw from so many likeliest tokens; 0 for all.
        max_batch_size: most turns that are generated together.
        max_context: longest prompt and turn together, in tokens; by default what the model's config says.
        chat_template: file of a chat template in place of the model's own.
        profile: how messages are prepared; keys of the server profile.
        device: such as ``cpu`` or ``cuda``; by default a GPU where there is one.
        dtype: of the weights; ``auto`` is what they were saved in.
        trust_remote_code: run Python code that comes with the model.
    """

    name = "local"

    def __init__(
        self,
        model: str,
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        max_batch_size: int = 32,
        max_context: int | None = None,
        chat_template: str | None = None,
        profile: Mapping[str, JSON] | None = None,
        device: str | None = None,
        dtype: DtypeName = "auto",
        trust_remote_code: bool = False,
    ) -> None:
        if max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1 or top_k < 0 or max_batch_size < 1:
            raise ConfigError(
                f"max_new_tokens {max_new_tokens} and max_batch_size {max_batch_size} are 1 or more, temperature "
                f"{temperature} and top_k {top_k} 0 or more, top_p {top_p} above 0 and up to 1"
            )
        self._model_name = str(model)
        self._sampling = Sampling(max_new_tokens, temperature, top_p, top_k)
        self._profile = config_from_dict(ServerProfile, dict(profile or {}), source="profile")
        self._max_batch_size = max_batch_size
        self._max_context = max_context
        self._chat_template = chat_template
        self._device = device
        self._dtype = dtype
        self._trust_remote_code = trust_remote_code
        self._player: _Player | None = None

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: ModelTokenizer, **arguments: Any) -> LocalPolicy:
        """Return a policy that plays a model that is loaded already; the other arguments are those of the class.

        What it has computed it keeps, so make another one when the weights have changed.
        """
        policy = cls(tokenizer.name, **arguments)
        policy._player = policy._make_player(model, tokenizer)
        return policy

    def identity(self) -> JSON:
        """Name the model, its sampling and its profile."""
        identity = {"name": self.name, "model": self._model_name, **asdict(self._sampling)}
        return identity | {"profile": self._profile.model_dump(mode="json", exclude_defaults=True)}

    def for_episode(self, start: EpisodeStart) -> Policy:
        """Load the model when it is first needed.

        Raises:
            ConfigError: it cannot be loaded.
        """
        if self._player is None:
            self._player = self._make_player(*self._load())
        return self

    async def act(self, context: Context) -> Action:
        """Generate the turn, together with those of other episodes that wait."""
        assert self._player is not None, "for_episode comes first"
        return await self._player.act(context)

    async def close(self) -> None:
        """Let go of the model."""
        self._player = None

    def _load(self) -> tuple[PreTrainedModel, ModelTokenizer]:
        """Load model and tokenizer; an adapter goes onto its base."""
        from understudy.models.export import base_of, find_model
        from understudy.models.load import is_adapter, load_model
        from understudy.models.lora import load_adapter

        folder = str(find_model(self._model_name)) if Path(self._model_name).exists() else self._model_name
        tokenizer = load_tokenizer(folder, chat_template=self._chat_template, trust_remote_code=self._trust_remote_code)
        has_adapter = is_adapter(folder)
        model = load_model(
            base_of(folder) if has_adapter else folder,
            dtype=self._dtype,
            trust_remote_code=self._trust_remote_code,
            device=self._device or _default_device(),
        )
        return (load_adapter(model, folder) if has_adapter else model), tokenizer

    def _make_player(self, model: PreTrainedModel, tokenizer: ModelTokenizer) -> _Player:
        renderer = Renderer(tokenizer, self._profile)
        stop_ids = frozenset(tokenizer.backend.token_to_id(text) for text in renderer.stops.texts)
        if not stop_ids:
            raise ConfigError(f"{self._model_name}: no token ends a turn; name them in profile.stop_tokens")
        generator = Generator(model, stop_ids, self._sampling)
        declared = getattr(model.config, "max_position_embeddings", None)
        limits = [limit for limit in (self._max_context or declared, declared) if limit is not None]
        return _Player(
            name=self._model_name,
            renderer=renderer,
            batcher=_Batcher(generator.generate, self._max_batch_size),
            max_new_tokens=self._sampling.max_new_tokens,
            max_context=min(limits) if limits else None,
        )


class _Player:
    """From a context to a prompt, and from an output to an action."""

    def __init__(
        self, name: str, renderer: Renderer, batcher: _Batcher, max_new_tokens: int, max_context: int | None
    ) -> None:
        self._name = name
        self._renderer = renderer
        self._batcher = batcher
        self._max_new_tokens = max_new_tokens
        self._max_context = max_context
        self._syntax: CallSyntax | None = None

    async def act(self, context: Context) -> Action:
        prompt = self._prompt(context.messages, context.tools)
        ids = tuple(self._renderer.segments.encode(prompt).tolist())
        room = self._max_new_tokens if self._max_context is None else self._max_context - len(ids)
        if room < 1:
            raise ContextLengthExceeded(f"the prompt has {len(ids):,} tokens of {self._max_context:,}")
        request = Request(ids, min(self._max_new_tokens, room), context.seed)
        generated = await self._batcher.submit(request)
        return Action(
            with_call_ids(self._message(prompt, generated, context.tools), context.messages),
            sampled=SampledTokens(ids, generated.ids, generated.logprobs),
            usage=Usage(len(ids), len(generated.ids)),
            annotations={"finish_reason": "stop" if generated.is_stopped else "length"},
        )

    def _prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        given = tools_to_openai(tools)
        try:
            prepared = [self._renderer.profile.prepare(message) for message in messages]
            return self._renderer.writer_for(given).prompt(prepared, given)
        except TurnRefused as refused:
            raise PolicyError(f"{self._name} cannot be asked: {refused}") from refused

    def _message(self, prompt: str, generated: Generated, tools: Sequence[Tool]) -> Message:
        ids = generated.ids[:-1] if generated.is_stopped else generated.ids
        text = self._renderer.tokenizer.backend.decode(list(ids), skip_special_tokens=False)
        is_open = any(prompt.rstrip().endswith(opening) for opening, _ in THINKING_BLOCKS)
        thought = split_thinking(text, is_open=is_open)
        parsed = self._call_syntax(tools).parse(thought.rest, tools) if tools else ParsedOutput(thought.rest)
        return Message(
            "assistant",
            parsed.content if parsed.content or not parsed.calls else None,
            reasoning_content=thought.reasoning or None,
            tool_calls=parsed.calls,
        )

    def _call_syntax(self, tools: Sequence[Tool]) -> CallSyntax:
        """Return how the model's template writes calls.

        Raises:
            ConfigError: it writes none that can be read.
        """
        if self._syntax is None:
            writer = self._renderer.writer_for(tools_to_openai(tools))
            self._syntax = derive_call_syntax(writer, as_text=self._renderer.profile.tool_arguments == "text")
        if self._syntax is None:
            raise ConfigError(
                f"{self._name}: its chat template writes no tool calls, or in a way that cannot be read back; give "
                "another chat_template, or play it through a server (policy endpoint)"
            )
        return self._syntax


@dataclass(slots=True)
class _Waiting:
    """A request and who waits for it."""

    request: Request
    reply: asyncio.Future[Generated]


class _Batcher:
    """Runs the requests that wait together, in a thread, so that environments go on meanwhile."""

    def __init__(self, generate: Callable[[Sequence[Request]], list[Generated]], max_batch_size: int) -> None:
        self._generate = generate
        self._max_batch_size = max_batch_size
        self._waiting: list[_Waiting] = []
        self._runner: asyncio.Task[None] | None = None

    async def submit(self, request: Request) -> Generated:
        """Return what the model writes.

        Raises:
            PolicyError: generation failed.
        """
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await waiting.reply

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_SECONDS)
            batch = [waiting for waiting in self._waiting[: self._max_batch_size] if not waiting.reply.done()]
            del self._waiting[: self._max_batch_size]
            if not batch:
                continue
            try:
                results = await asyncio.to_thread(self._generate, [waiting.request for waiting in batch])
            except Exception as error:  # out of memory, a model that cannot be cached: the episodes end, not the run
                for waiting in batch:
                    if not waiting.reply.done():
                        waiting.reply.set_exception(PolicyError(f"generation failed: {type(error).__name__}: {error}"))
                continue
            for waiting, result in zip(batch, results, strict=True):
                if not waiting.reply.done():
                    waiting.reply.set_result(result)


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"

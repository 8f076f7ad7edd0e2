"""A Hugging Face model on this machine, with the renderer of its training: whoever asks it shares its batches.

Loaded when it is first needed, so that a plan can be made without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from understudy.config import config_from_dict
from understudy.errors import ConfigError, PolicyError, RenderError
from understudy.rendering import ModelTokenizer, Renderer, ServerProfile, load_tokenizer
from understudy.types import JSON

from .base import ContextLengthExceeded
from .generation import Continuation, Generated, Generator, Request, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from understudy.models.load import DtypeName

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

GATHER_SECONDS = 0.002
"""So long a batch waits for more requests before it starts."""


class LocalModel:
    """Generates with one model.

    Args:
        name: model folder, adapter folder, folder of a run, or hub name.
        sampling: how tokens are chosen.
        max_batch_size: most outputs that are generated together.
        max_context: longest prompt and output together, in tokens; by default what the model's config says.
        chat_template: file of a chat template in place of the model's own.
        profile: how messages are prepared; keys of the server profile.
        device: such as ``cpu`` or ``cuda``; by default a GPU where there is one.
        dtype: of the weights; ``auto`` is what they were saved in.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        ConfigError: a value is out of range.
    """

    def __init__(
        self,
        name: str,
        sampling: Sampling,
        *,
        max_batch_size: int = 32,
        max_context: int | None = None,
        chat_template: str | None = None,
        profile: Mapping[str, JSON] | None = None,
        device: str | None = None,
        dtype: DtypeName = "auto",
        trust_remote_code: bool = False,
    ) -> None:
        s = sampling
        if s.max_new_tokens < 1 or s.temperature < 0 or not 0 < s.top_p <= 1 or s.top_k < 0 or max_batch_size < 1:
            raise ConfigError(
                f"max_new_tokens {s.max_new_tokens} and max_batch_size {max_batch_size} are 1 or more, temperature "
                f"{s.temperature} and top_k {s.top_k} 0 or more, top_p {s.top_p} above 0 and up to 1"
            )
        self.name = str(name)
        self._sampling = sampling
        self._profile = config_from_dict(ServerProfile, dict(profile or {}), source="profile")
        self._max_batch_size = max_batch_size
        self._max_context = max_context
        self._chat_template = chat_template
        self._device = device
        self._dtype = dtype
        self._trust_remote_code = trust_remote_code
        self._loaded: _Loaded | None = None

    def identity(self) -> dict[str, JSON]:
        """Name the model, its sampling and its profile."""
        identity = {"model": self.name, **asdict(self._sampling)}
        return identity | {"profile": self._profile.model_dump(mode="json", exclude_defaults=True)}

    @property
    def renderer(self) -> Renderer:
        """What makes its prompts; `load` comes first."""
        return self._now.renderer

    def load(self) -> None:
        """Bring it into memory, unless it is there; an adapter goes onto its base.

        Raises:
            ConfigError: it cannot be loaded, or no token ends its turns.
        """
        if self._loaded is not None:
            return
        try:
            self._load()
        except RenderError as error:  # of its tokenizer or its template, and the same for every episode
            raise ConfigError(str(error)) from error

    def _load(self) -> None:
        from understudy.models.trained import load_trained, model_folder

        folder = model_folder(self.name)
        tokenizer = load_tokenizer(folder, chat_template=self._chat_template, trust_remote_code=self._trust_remote_code)
        model: Any = load_trained(
            folder,
            dtype=self._dtype,
            trust_remote_code=self._trust_remote_code,
            device=self._device or _default_device(),
        )
        self.use(model, tokenizer)

    def use(self, model: PreTrainedModel, tokenizer: ModelTokenizer) -> None:
        """Take a model that is in memory already. What it has computed is kept, so its weights must stay as they are.

        Raises:
            ConfigError: no token ends its turns.
        """
        renderer = Renderer(tokenizer, self._profile)
        stop_ids = frozenset(tokenizer.backend.token_to_id(text) for text in renderer.stops.texts)
        if not stop_ids:
            raise ConfigError(f"{self.name}: no token ends a turn; name them in profile.stop_tokens")
        generator = Generator(model, stop_ids, self._sampling)
        declared = getattr(model.config, "max_position_embeddings", None)
        limits = [limit for limit in (self._max_context or declared, declared) if limit is not None]
        self._loaded = _Loaded(
            renderer,
            Batcher(generator.generate, self._max_batch_size),
            Batcher(generator.log_likelihoods, self._max_batch_size),
            min(limits) if limits else None,
        )

    def let_go(self) -> None:
        """Let it out of memory."""
        self._loaded = None

    async def generate(self, ids: Sequence[int], seed: int, *, stop_ids: frozenset[int] | None = None) -> Generated:
        """Go on with a prompt, together with others that wait.

        Args:
            seed: for random choices.
            stop_ids: tokens that end the output; by default those that end a turn.

        Raises:
            ContextLengthExceeded: the prompt leaves no room.
            PolicyError: generation failed.
        """
        room = self._room(len(ids), self._sampling.max_new_tokens)
        return await self._now.generating.submit(Request(tuple(ids), room, seed, stop_ids))

    async def log_likelihood(self, prompt_ids: Sequence[int], ids: Sequence[int]) -> float:
        """Return the natural logarithm of the probability that the model goes on with some ids.

        Raises:
            ContextLengthExceeded: the prompt leaves no room.
            PolicyError: it could not be computed.
        """
        self._room(len(prompt_ids) + len(ids) - 1, 1)
        return await self._now.measuring.submit(Continuation(tuple(prompt_ids), tuple(ids)))

    def _room(self, num_tokens: int, most: int) -> int:
        """Return how many tokens may follow so many, at most those that are wanted."""
        limit = self._now.max_context
        room = most if limit is None else min(most, limit - num_tokens)
        if room < 1:
            raise ContextLengthExceeded(f"the prompt has {num_tokens:,} tokens of {limit:,}")
        return room

    @property
    def _now(self) -> _Loaded:
        if self._loaded is None:
            raise PolicyError(f"{self.name} is not in memory: load comes first")
        return self._loaded


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What is in memory."""

    renderer: Renderer
    generating: Batcher[Request, Generated]
    measuring: Batcher[Continuation, float]
    max_context: int | None


@dataclass(slots=True)
class _Waiting(Generic[Asked, Answer]):
    """What is asked, and who waits for the answer."""

    asked: Asked
    reply: asyncio.Future[Answer]


class Batcher(Generic[Asked, Answer]):
    """Answers together what is asked at the same time, in a thread, so that environments go on meanwhile.

    Args:
        answer: what answers, several at once.
        max_batch_size: how many at most.
    """

    def __init__(self, answer: Callable[[Sequence[Asked]], list[Answer]], max_batch_size: int) -> None:
        self._answer = answer
        self._max_batch_size = max_batch_size
        self._waiting: list[_Waiting[Asked, Answer]] = []
        self._runner: asyncio.Task[None] | None = None

    async def submit(self, asked: Asked) -> Answer:
        """Return the answer.

        Raises:
            PolicyError: there is none, because the model failed.
        """
        waiting: _Waiting[Asked, Answer] = _Waiting(asked, asyncio.get_running_loop().create_future())
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
                results = await asyncio.to_thread(self._answer, [waiting.asked for waiting in batch])
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

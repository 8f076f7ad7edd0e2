"""A world model: writes what is observed after an action, in the place of the environment.

It continues a conversation that ends with an action, behind the very ids that its training put in front of such an
observation. An action with calls is answered by one result for each call, in order; any other by a user's message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from understudy.config import config_from_dict
from understudy.environments import Observation
from understudy.errors import ConfigError, PolicyError, RenderError
from understudy.policies.base import Usage
from understudy.policies.generation import Sampling
from understudy.policies.local_model import LocalModel
from understudy.rendering import next_observation
from understudy.types import JSON, Message, Tool

from .settings import WorldModelSettings


@dataclass(frozen=True, slots=True)
class Imagined:
    """What a world model wrote.

    Args:
        messages: the observation.
        logprob: natural logarithm of its probability, the token that ends it included.
        is_whole: False where a part of it was cut off for its length.
        usage: what it cost.
    """

    messages: tuple[Message, ...]
    logprob: float
    is_whole: bool
    usage: Usage


class WorldModel:
    """Predicts observations. All who ask for the same settings share one, and the weights in it.

    Args:
        settings: see `WorldModelSettings`.
    """

    def __init__(self, settings: WorldModelSettings) -> None:
        self.settings = settings
        s = settings
        self._model = LocalModel(
            s.model,
            Sampling(s.max_new_tokens, s.temperature, s.top_p, s.top_k),
            max_batch_size=s.max_batch_size,
            max_context=s.max_context,
            chat_template=s.chat_template,
            profile=s.profile.model_dump(mode="json", exclude_defaults=True),
            device=s.device,
            dtype=s.dtype,
            trust_remote_code=s.trust_remote_code,
        )

    @classmethod
    def of(cls, given: str | Mapping[str, Any]) -> WorldModel:
        """Return the world model that is meant: a model's name, or the keys of its settings.

        Raises:
            ConfigError: a key is unknown or a value out of range.
        """
        value = {"model": given} if isinstance(given, str) else given
        settings = config_from_dict(WorldModelSettings, value, source="world_model")
        key = settings.model_dump_json()
        found = _SHARED.get(key)
        if found is None:
            found = _SHARED[key] = cls(settings)
        return found

    def identity(self) -> JSON:
        """Name the model, its sampling and its profile."""
        return self._model.identity()

    def load(self) -> None:
        """Bring it into memory, unless it is there.

        Raises:
            ConfigError: it cannot be loaded.
        """
        self._model.load()

    def let_go(self) -> None:
        """Let it out of memory; it is loaded again when it is asked."""
        self._model.let_go()

    async def observe(self, messages: Sequence[Message], tools: Sequence[Tool], seed: int) -> Imagined:
        """Return what is observed after the action that ends a conversation.

        Args:
            seed: for random choices.

        Raises:
            ConfigError: the model cannot be loaded, or its template shows no end of an observation.
            ContextLengthExceeded: the conversation leaves no room.
            PolicyError: generation failed, or the template refuses the conversation.
        """
        self.load()
        observed: list[Message] = []
        logprob, is_whole, num_prompt, num_new = 0.0, True, 0, 0
        for number, expected in enumerate(_expected_after(messages[-1])):
            prompt_ids, end_id, read = self._prompt([*messages, *observed], tools, expected)
            stops = frozenset({end_id})
            generated = await self._model.generate(prompt_ids, _seed(seed, number), stop_ids=stops)
            ids = generated.ids[:-1] if generated.is_stopped else generated.ids
            text = self._model.renderer.tokenizer.backend.decode(list(ids), skip_special_tokens=False)
            observed.append(Message(expected.role, read(text), tool_call_id=expected.tool_call_id, name=expected.name))
            logprob += sum(generated.logprobs)
            is_whole = is_whole and generated.is_stopped
            num_prompt, num_new = num_prompt + len(prompt_ids), num_new + len(generated.ids)
        return Imagined(tuple(observed), logprob, is_whole, Usage(num_prompt, num_new))

    async def log_likelihood(self, messages: Sequence[Message], tools: Sequence[Tool], message: Message) -> float:
        """Return the natural logarithm of the probability that a conversation goes on with a message of this content.

        Raises:
            ConfigError, PolicyError: as `observe`.
        """
        self.load()
        prompt_ids, end_id, _ = self._prompt(messages, tools, message)
        encoded = self._model.renderer.segments.plain(message.text().strip())
        return await self._model.log_likelihood(prompt_ids, (*encoded.tolist(), end_id))

    def _prompt(self, messages: Sequence[Message], tools: Sequence[Tool], expected: Message) -> Any:
        """Return the ids to go on with, the token that ends the message, and what reads its content."""
        try:
            found = next_observation(self._model.renderer, messages, tools, expected)
        except RenderError as error:
            raise PolicyError(f"{self._model.name} cannot be asked: {error}") from error
        if found.end_id is None:
            raise ConfigError(
                f"{self._model.name}: its chat template ends no {expected.role} message with a token of its own, so it "
                "cannot be told where an observation ends; give world_model.chat_template another one"
            )
        return found.prompt_ids, found.end_id, found.content


def check_appends(observation: Observation) -> None:
    """Refuse an observation that is no continuation, for a world model knows nothing but continuations.

    Raises:
        ConfigError: it replaces the conversation.
    """
    if observation.mode == "replace":
        raise ConfigError(
            "dreams and planners need an environment that adds to the conversation, and this one replaces it"
        )


_SHARED: WeakValueDictionary[str, WorldModel] = WeakValueDictionary()


def _expected_after(action: Message) -> list[Message]:
    """Return the messages that answer an action, without their contents."""
    if not action.tool_calls:
        return [Message("user", "")]
    return [Message("tool", "", tool_call_id=call.id, name=call.name) for call in action.tool_calls]


def _seed(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:8], "big") >> 1

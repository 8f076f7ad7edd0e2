"""The local policy: a Hugging Face model on this machine, playing many episodes at once.

A prompt is made by `understudy.rendering`, so it has the very ids that training on the episode computes. Tool calls are
read as the model's own template writes them. The ids and log probabilities of every turn are recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from understudy.errors import ConfigError, PolicyError
from understudy.rendering import ModelTokenizer
from understudy.rendering.call_syntax import CallSyntax, ParsedOutput, derive_call_syntax, split_thinking
from understudy.rendering.continuation import THINKING_BLOCKS
from understudy.rendering.refusal import TurnRefused
from understudy.types import JSON, Message, SampledTokens, Tool, tools_to_openai

from .base import Action, Context, EpisodeStart, Policy, Usage, with_call_ids
from .generation import Generated, Sampling
from .local_model import LocalModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from understudy.models.load import DtypeName


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
        self._model = LocalModel(
            model,
            Sampling(max_new_tokens, temperature, top_p, top_k),
            max_batch_size=max_batch_size,
            max_context=max_context,
            chat_template=chat_template,
            profile=profile,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        )
        self._syntax: CallSyntax | None = None

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: ModelTokenizer, **arguments: Any) -> LocalPolicy:
        """Return a policy that plays a model that is loaded already; the other arguments are those of the class.

        What it has computed it keeps, so make another one when the weights have changed.
        """
        policy = cls(tokenizer.name, **arguments)
        policy._model.use(model, tokenizer)
        return policy

    def identity(self) -> JSON:
        """Name the model, its sampling and its profile."""
        return {"name": self.name, **self._model.identity()}

    def for_episode(self, start: EpisodeStart) -> Policy:
        """Load the model when it is first needed.

        Raises:
            ConfigError: it cannot be loaded.
        """
        self._model.load()
        return self

    async def act(self, context: Context) -> Action:
        """Generate the turn, together with those of other episodes that wait."""
        prompt = self._prompt(context.messages, context.tools)
        ids = tuple(self._model.renderer.segments.encode(prompt).tolist())
        generated = await self._model.generate(ids, context.seed)
        return Action(
            with_call_ids(self._message(prompt, generated, context.tools), context.messages),
            sampled=SampledTokens(ids, generated.ids, generated.logprobs),
            usage=Usage(len(ids), len(generated.ids)),
            annotations={"finish_reason": "stop" if generated.is_stopped else "length"},
        )

    async def close(self) -> None:
        """Let go of the model."""
        self._model.let_go()
        self._syntax = None

    def _prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        given = tools_to_openai(tools)
        try:
            prepared = [self._model.renderer.profile.prepare(message) for message in messages]
            return self._model.renderer.writer_for(given).prompt(prepared, given)
        except TurnRefused as refused:
            raise PolicyError(f"{self._model.name} cannot be asked: {refused}") from refused

    def _message(self, prompt: str, generated: Generated, tools: Sequence[Tool]) -> Message:
        ids = generated.ids[:-1] if generated.is_stopped else generated.ids
        text = self._model.renderer.tokenizer.backend.decode(list(ids), skip_special_tokens=False)
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
            writer = self._model.renderer.writer_for(tools_to_openai(tools))
            self._syntax = derive_call_syntax(writer, as_text=self._model.renderer.profile.tool_arguments == "text")
        if self._syntax is None:
            raise ConfigError(
                f"{self._model.name}: its chat template writes no tool calls, or in a way that cannot be read back; "
                "give another chat_template, or play it through a server (policy endpoint)"
            )
        return self._syntax

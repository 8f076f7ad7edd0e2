"""Render trajectories for one model as its server would.

A `Renderer` is made once for a model: its tokenizer, templates, server profile and stop tokens, all of them in its
fingerprint. `render` then turns each trajectory into a token tree in which every supervised token stands behind exactly
the ids that the server would have computed. A turn for which that cannot be had is refused with a code.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from understudy.errors import RenderError, did_you_mean
from understudy.types import Trajectory, tools_to_openai

from .continuation import Prepared, TurnWriter
from .huggingface import ModelTokenizer
from .profile import ServerProfile
from .refusal import TurnRefused
from .rendered import Rendered
from .segments import VERIFY_EVERY, SegmentTokenizer
from .stops import StopTokens, derive_stop_tokens
from .template import ChatTemplate
from .trajectory import TrajectoryRendering

OnRefusal = Literal["fail", "skip", "context"]
ON_REFUSAL: tuple[OnRefusal, ...] = ("fail", "skip", "context")


class Renderer:
    """Render trajectories for one model as its server would.

    Args:
        tokenizer: the model's tokenizer, from `load_tokenizer`.
        profile: what the server does around the template.
        on_refusal: ``fail`` raises at the first refused turn; ``skip`` leaves the turn out (later turns still see it as
            the template prints it); ``context`` also inserts its prompt, so that observations in it can be trained.
        observations: locate observed messages too, for the world-model objective. Costs one more render per turn.
        audit: hold recorded ids against the rendering of the same turn.
        verify_every: compare one tokenised text in so many with a plain encode; 1 compares all.

    Raises:
        RenderError: the model has no chat template, or it cannot be compiled.
    """

    def __init__(
        self,
        tokenizer: ModelTokenizer,
        profile: ServerProfile | None = None,
        *,
        on_refusal: OnRefusal = "fail",
        observations: bool = False,
        audit: bool = False,
        verify_every: int = VERIFY_EVERY,
    ) -> None:
        if on_refusal not in ON_REFUSAL:
            raise RenderError(
                f"on_refusal is {on_refusal!r}.{did_you_mean(on_refusal, ON_REFUSAL)} Known: {ON_REFUSAL}"
            )
        self.tokenizer = tokenizer
        self.on_refusal = on_refusal
        self.segments = SegmentTokenizer(tokenizer, verify_every=verify_every)
        profile = profile or ServerProfile()
        self._templates = {
            name: ChatTemplate(source, tokenizer.variables, profile.clock)
            for name, source in tokenizer.templates.items()
        }
        if not self._templates:
            raise RenderError(f"{tokenizer.name!r} has no chat template; give one with chat_template")
        if "default" not in self._templates:
            raise RenderError(f"{tokenizer.name!r} has templates {sorted(self._templates)}, but none called default")
        self.profile = self._resolve(profile)
        self.stops = StopTokens(self._stop_texts(), self.segments)
        self._writers = {
            name: TurnWriter(template, self.profile, self.stops, self.segments)
            for name, template in self._templates.items()
        }
        self.observations = observations
        self.audit = audit

    def _resolve(self, profile: ServerProfile) -> ServerProfile:
        """Settle ``tool_arguments: auto``: text if the template prints a call of text and not one of an object."""
        if profile.tool_arguments != "auto":
            return profile
        template = self._templates[self._template_name(tools=[{}])]
        for form, arguments in (("object", {"qzkeyq": "qzvalueq"}), ("text", '{"qzkeyq": "qzvalueq"}')):
            call = {"type": "function", "id": "abcdefghi", "function": {"name": "qznameq", "arguments": arguments}}
            messages: list[Prepared] = [
                {"role": "user", "content": "qzuserq"},
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "abcdefghi", "name": "qznameq", "content": "qzresultq"},
            ]
            for probe in (messages, messages[:2]):
                try:
                    text = template.render(
                        probe, None, add_generation_prompt=False, arguments=profile.template_arguments
                    )
                except TurnRefused:
                    continue
                if "qzvalueq" in text:
                    return profile.model_copy(update={"tool_arguments": form})
        return profile.model_copy(update={"tool_arguments": "object"})

    def _stop_texts(self) -> tuple[str, ...]:
        override = self.profile.stop_tokens
        if override is not None:
            unknown = [text for text in override if self.tokenizer.backend.token_to_id(text) is None]
            if unknown:
                mend = did_you_mean(unknown[0], self.segments.added)
                raise RenderError(f"stop token {unknown[0]!r} is not a token of {self.tokenizer.name!r}.{mend}")
            return override
        if self.tokenizer.stop_tokens:
            return self.tokenizer.stop_tokens
        derived = derive_stop_tokens(self._templates["default"], self.segments)
        return derived or ((self.tokenizer.eos_token,) if self.tokenizer.eos_token else ())

    @property
    def reads_clock(self) -> bool:
        """True when the template prints the date, which the profile pins."""
        return any(template.reads_clock for template in self._templates.values())

    def fingerprint(self) -> str:
        """Return a hash of all that decides the tokens: vocabulary, templates, variables, profile, stop tokens."""
        parts = [
            self.tokenizer.fingerprint(),
            {name: template.source for name, template in sorted(self._templates.items())},
            dict(sorted(self.tokenizer.variables.items())),
            self.profile.canonical(),
            self.stops.texts,
        ]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]

    def render(self, trajectory: Trajectory) -> Rendered:
        """Render every turn of a trajectory that has an action and a weight.

        Raises:
            RenderError: a turn was refused and `on_refusal` is ``fail``.
        """
        return TrajectoryRendering(self, trajectory).run()

    def flat_length(self, trajectory: Trajectory) -> int:
        """Return how many tokens the trajectory's conversations count as plain rows, each rendered once as a whole.

        This is what a trainer that masks one rendered conversation computes, exact or not.

        Raises:
            TurnRefused: the template refuses a conversation.
        """
        total = 0
        for leaf in trajectory.leaves():
            messages = [self.profile.prepare(message) for message in trajectory.messages(leaf)]
            tools = tools_to_openai(trajectory.tools(leaf))
            template = self._templates[self._template_name(tools)]
            text = template.render(
                messages, tools, add_generation_prompt=False, arguments=self.profile.template_arguments
            )
            total += len(self.segments.encode(text))
        return total

    def writer_for(self, tools: Any) -> TurnWriter:
        """Return the writer with the template that transformers picks for these tools."""
        return self._writers[self._template_name(tools)]

    def forget(self) -> None:
        """Let the templates forget the JSON texts of the last trajectory's values."""
        for template in self._templates.values():
            template.forget()

    def _template_name(self, tools: Any) -> str:
        return "tool_use" if tools and "tool_use" in self._templates else "default"

"""All that a model's server brings to a text: its templates under one profile, its stop tokens, its tokenizer."""

from __future__ import annotations

from typing import Any

from understudy.errors import RenderError, did_you_mean

from .continuation import Prepared, TurnWriter
from .huggingface import ModelTokenizer
from .profile import ServerProfile
from .refusal import TurnRefused
from .segments import SegmentTokenizer
from .stops import StopTokens, derive_stop_tokens
from .template import ChatTemplate


class ModelWriters:
    """A writer for each of a model's chat templates.

    Args:
        tokenizer: the model's tokenizer.
        profile: what the server does around the template.
        segments: encodes what is written.

    Attributes:
        profile: the same with everything settled that it leaves open.

    Raises:
        RenderError: the model has no chat template, or it cannot be compiled, or a stop token is none.
    """

    def __init__(self, tokenizer: ModelTokenizer, profile: ServerProfile, segments: SegmentTokenizer) -> None:
        self.tokenizer = tokenizer
        self.segments = segments
        self._templates = {
            name: ChatTemplate(source, tokenizer.variables, profile.clock)
            for name, source in tokenizer.templates.items()
        }
        if not self._templates:
            raise RenderError(f"{tokenizer.name!r} has no chat template; give one with chat_template")
        if "default" not in self._templates:
            raise RenderError(f"{tokenizer.name!r} has templates {sorted(self._templates)}, but none called default")
        self.profile = self._resolve(profile)
        self.stops = StopTokens(self._stop_texts(), segments)
        self._writers = {
            name: TurnWriter(template, self.profile, self.stops, segments) for name, template in self._templates.items()
        }

    @property
    def reads_clock(self) -> bool:
        """True when a template prints the date, which the profile pins."""
        return any(template.reads_clock for template in self._templates.values())

    def for_tools(self, tools: Any) -> TurnWriter:
        """Return the writer with the template that transformers picks for these tools."""
        return self._writers[self._template_name(tools)]

    def drops(self, tools: Any) -> bool:
        """Say whether the template leaves out the tools that a conversation offers."""
        return bool(tools) and not self._templates[self._template_name(tools)].reads_tools

    def forget(self) -> None:
        """Let the templates forget the JSON texts of the last trajectory's values."""
        for template in self._templates.values():
            template.forget()

    def whole(self, messages: list[Prepared], tools: Any) -> str:
        """Return the text of a conversation rendered once, without a generation prompt.

        Raises:
            TurnRefused: the template refuses it.
        """
        template = self._templates[self._template_name(tools)]
        return template.render(messages, tools, add_generation_prompt=False, arguments=self.profile.template_arguments)

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

    def _template_name(self, tools: Any) -> str:
        return "tool_use" if tools and "tool_use" in self._templates else "default"

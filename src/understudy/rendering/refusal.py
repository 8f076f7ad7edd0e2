"""Why a turn cannot be rendered exactly, as a code that a person can look up and a program can count."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RefusalCode(StrEnum):
    """Every reason for which a turn is refused. `MENDS` says for each one what to do about it."""

    PROMPT_NOT_PREFIX = "PROMPT_NOT_PREFIX"
    REASONING_AFTER_CLOSED_THINK = "REASONING_AFTER_CLOSED_THINK"
    DROPS_CONTENT = "DROPS_CONTENT"
    DROPS_REASONING = "DROPS_REASONING"
    DROPS_TOOL_CALL = "DROPS_TOOL_CALL"
    NO_STOP = "NO_STOP"
    TEXT_AFTER_STOP = "TEXT_AFTER_STOP"
    STOP_INSIDE_TURN = "STOP_INSIDE_TURN"
    TEMPLATE_RAISED = "TEMPLATE_RAISED"
    TEMPLATE_TOO_LONG = "TEMPLATE_TOO_LONG"
    ARGUMENTS_NOT_JSON = "ARGUMENTS_NOT_JSON"
    HAS_IMAGES = "HAS_IMAGES"
    LONE_SURROGATE = "LONE_SURROGATE"
    EMPTY_CONTEXT = "EMPTY_CONTEXT"
    RECORDED_IDS_EMPTY = "RECORDED_IDS_EMPTY"


MENDS: dict[RefusalCode, str] = {
    RefusalCode.PROMPT_NOT_PREFIX: (
        "the template writes this turn differently in history than after a generation prompt; set template_arguments "
        "(for example enable_thinking) to what the server used, or record token ids when collecting"
    ),
    RefusalCode.REASONING_AFTER_CLOSED_THINK: (
        "the prompt has thinking switched off but the turn has reasoning; switch thinking on in template_arguments"
    ),
    RefusalCode.DROPS_CONTENT: "the template does not print this content; use the template that the server used",
    RefusalCode.DROPS_REASONING: (
        "the template does not print reasoning here; remove it from the data or use a template that prints it"
    ),
    RefusalCode.DROPS_TOOL_CALL: (
        "the template does not print this call as it was made; use a template with tool support, "
        "or set tool_arguments to what it expects (object or text)"
    ),
    RefusalCode.NO_STOP: "name the stop tokens: stop_tokens: [...] (the model's generation_config lists them)",
    RefusalCode.TEXT_AFTER_STOP: "the template writes text after the stop token; check stop_tokens",
    RefusalCode.STOP_INSIDE_TURN: "the turn's text contains a stop token, where a server would have ended it; clean it",
    RefusalCode.TEMPLATE_RAISED: "the template refuses these messages; see its own words, mend the order of roles",
    RefusalCode.TEMPLATE_TOO_LONG: "the template loops or grows without bound; use another template",
    RefusalCode.ARGUMENTS_NOT_JSON: "a server would refuse these arguments; repair the JSON or drop the turn",
    RefusalCode.HAS_IMAGES: "images need a vision-language processor; remove the image parts to train on text alone",
    RefusalCode.LONE_SURROGATE: "the text holds half of a UTF-16 pair, which no tokenizer can take; repair the text",
    RefusalCode.EMPTY_CONTEXT: (
        "no server answers an empty conversation; give the turn weight 0 or put a system or user message before it"
    ),
    RefusalCode.RECORDED_IDS_EMPTY: "the recorded call has no output ids; drop the turn or its recorded ids",
}


class TurnRefused(Exception):
    """Raised inside the renderer where a turn turns out not to be exact."""

    def __init__(self, code: RefusalCode, reason: str, excerpt: str = "") -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.excerpt = excerpt


@dataclass(frozen=True, slots=True)
class Refusal:
    """A turn that was refused: `turn` is its index in the trajectory, `excerpt` the text where it went wrong."""

    turn: int
    code: RefusalCode
    reason: str
    excerpt: str = ""

    @property
    def mend(self) -> str:
        return MENDS[self.code]

    def __str__(self) -> str:
        excerpt = f" at {self.excerpt!r}" if self.excerpt else ""
        return f"turn {self.turn}: {self.code}: {self.reason}{excerpt} (mend: {self.mend})"

"""Plain data: messages, episodes, token trees. No files, no torch."""

from .episode import SCHEMA_VERSION, Episode, SampledTokens, Trajectory, Turn, turns_from_messages
from .message import (
    JSON,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCall,
    tools_to_openai,
)
from .tokens import Span, SpanKind, TokenTree, TokenTreeBuilder

__all__ = [
    "JSON",
    "SCHEMA_VERSION",
    "Episode",
    "ImagePart",
    "Message",
    "Part",
    "ReasoningPart",
    "SampledTokens",
    "Span",
    "SpanKind",
    "TextPart",
    "TokenTree",
    "TokenTreeBuilder",
    "Tool",
    "ToolCall",
    "Trajectory",
    "Turn",
    "tools_to_openai",
    "turns_from_messages",
]

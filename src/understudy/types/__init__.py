"""Plain data: messages, episodes, token trees. No files, no torch."""

from .episode import (
    ORIGIN,
    SCHEMA_VERSION,
    Episode,
    SampledTokens,
    Trajectory,
    Transition,
    Turn,
    content_hash,
    turns_from_messages,
)
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
from .openai import message_from_openai, message_to_row, message_weight, messages_from_openai
from .openai_tools import tools_from_openai
from .tokens import Span, SpanKind, TokenTree, TokenTreeBuilder

__all__ = [
    "JSON",
    "ORIGIN",
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
    "Transition",
    "Turn",
    "content_hash",
    "message_from_openai",
    "message_to_row",
    "message_weight",
    "messages_from_openai",
    "tools_from_openai",
    "tools_to_openai",
    "turns_from_messages",
]

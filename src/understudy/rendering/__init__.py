"""Messages to tokens: exact prompts and targets, or a refusal."""

from .account import RenderAccount
from .huggingface import ModelTokenizer, from_transformers, load_tokenizer
from .next_observation import NextObservation, next_observation
from .profile import ServerProfile
from .refusal import MENDS, Refusal, RefusalCode
from .rendered import Audit, ControlString, DroppedContext, Rendered, RenderedTurn
from .renderer import Renderer
from .trajectory import ON_REFUSAL, OnRefusal

__all__ = [
    "MENDS",
    "ON_REFUSAL",
    "Audit",
    "ControlString",
    "DroppedContext",
    "ModelTokenizer",
    "NextObservation",
    "OnRefusal",
    "Refusal",
    "RefusalCode",
    "RenderAccount",
    "Rendered",
    "RenderedTurn",
    "Renderer",
    "ServerProfile",
    "from_transformers",
    "load_tokenizer",
    "next_observation",
]

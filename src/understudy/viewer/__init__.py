"""Look at what is trained."""

from .token_groups import TokenGroup, token_groups
from .token_html import token_page
from .token_text import token_text

__all__ = ["TokenGroup", "token_groups", "token_page", "token_text"]

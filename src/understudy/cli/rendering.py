"""What all commands that render have in common: the model, its template, and the server's profile."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .parser import Parser

if TYPE_CHECKING:
    from understudy.rendering import Renderer


def add_model_arguments(parser: Parser) -> None:
    """Add --model and the options that say how its server renders."""
    parser.add_argument("--model", required=True, metavar="M", help="model folder or hub name: tokenizer and template")
    parser.add_argument("--chat-template", metavar="FILE", help="a chat template in place of the model's own")
    parser.add_argument("--profile", metavar="FILE", help="YAML file that says how the server prepares requests")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting of the profile, such as template_arguments.enable_thinking=false; may be given again",
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run tokenizer code that the model's folder brings along"
    )


def make_renderer(args: argparse.Namespace, **options: Any) -> Renderer:
    """Return a renderer for what the arguments name.

    Raises:
        ConfigError: the profile is wrong.
        RenderError: the tokenizer or its template cannot be used.
    """
    from understudy.config import load_config
    from understudy.rendering import Renderer, ServerProfile, load_tokenizer

    profile = load_config(ServerProfile, args.profile, args.set)
    tokenizer = load_tokenizer(args.model, chat_template=args.chat_template, trust_remote_code=args.trust_remote_code)
    return Renderer(tokenizer, profile, **options)

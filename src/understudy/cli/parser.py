"""Argument parsing that answers a typo with what was probably meant."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from understudy.errors import ConfigError, did_you_mean


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `ConfigError` instead of exiting, and takes no abbreviated options."""

    def __init__(self, prog: str, *, description: str | None = None, epilog: str | None = None, **kwargs: Any) -> None:
        super().__init__(
            prog=prog,
            description=(description or "").strip(),
            epilog=(epilog or "").strip() or None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **kwargs,
        )

    def error(self, message: str) -> NoReturn:
        end = "" if message.endswith(("?", ".")) else "."
        raise ConfigError(f"{message}{end} See {self.prog} --help")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse all arguments; options may stand between positional ones.

        Raises:
            ConfigError: an argument is unknown, missing or malformed.
        """
        namespace, unknown = self.parse_known_intermixed_args(list(arguments))
        if unknown:
            options = [name for action in self._actions for name in action.option_strings]
            name = unknown[0].partition("=")[0]
            kind = "option" if name.startswith("-") and name != "-" else "argument"
            self.error(f"unknown {kind} {name!r}.{did_you_mean(name, options)}")
        return namespace


def one_of(*known: str) -> Callable[[str], str]:
    """Return an argument type that takes one of some words."""

    def check(text: str) -> str:
        if text not in known:
            near = did_you_mean(text, known)
            raise argparse.ArgumentTypeError(f"unknown value {text!r}.{near} Known: {', '.join(known)}")
        return text

    return check


def positive_int(text: str) -> int:
    """An argument type: a whole number above zero."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return value

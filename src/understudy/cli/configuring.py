"""What the commands that follow a config have in common: CONFIG, KEY=VALUE, and --keys."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, TypeVar

from understudy.registry import TABLES

from .parser import Parser

if TYPE_CHECKING:
    from understudy.config import ConfigModel

Config = TypeVar("Config", bound="ConfigModel")

COMPONENTS = f"""environments: {", ".join(TABLES["environments"])},
package.module:Class or file.py:Class
policies: {", ".join(name for name in TABLES["policies"] if name != "human")}, or your own likewise"""
"""For the help of commands that let policies play; a person plays in `understudy play`."""


def add_config_arguments(parser: Parser) -> None:
    """Add CONFIG, KEY=VALUE and --keys."""
    parser.add_argument(
        "config", nargs="*", metavar="[CONFIG] [KEY=VALUE]", help="YAML file, and keys by their dotted names"
    )
    parser.add_argument("--keys", action="store_true", help="print every key of the config with its meaning, and end")


def read_config(args: argparse.Namespace, model: type[Config]) -> Config | None:
    """Return the checked config; None when ``--keys`` asked for the keys, which are then printed.

    Raises:
        ConfigError: something in it is wrong.
    """
    from understudy.config import config_help, load_config

    if args.keys:
        print(config_help(model), end="")
        return None
    given = list(args.config)
    path = given.pop(0) if given and names_file(given[0]) else None
    return load_config(model, path, given)


def names_file(argument: str) -> bool:
    """Say whether an argument names a config and is no KEY=VALUE: a folder may be called ``lr=1e-4``."""
    return "=" not in argument or os.path.isfile(argument)

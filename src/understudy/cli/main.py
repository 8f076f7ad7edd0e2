"""The entry point: finds the verb, runs it, and turns every error into one message and an exit status.

A verb is one word, or two (`store add`). Its module is imported only when it is named. It has a docstring and an
`EPILOG`, which are its help, and

- ``add_arguments(parser: Parser) -> None``
- ``run(args: argparse.Namespace) -> int``, which returns the exit status and imports what is heavy.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

from understudy import __version__
from understudy.errors import ConfigError, MissingDependency, UnderstudyError, did_you_mean

from .parser import Parser

VERBS: dict[str, tuple[str, str]] = {
    "check": ("understudy.cli.check", "verify that every turn trains on exactly what a server would compute"),
    "collect": ("understudy.cli.collect", "let agents play, many episodes at once, and write them down"),
    "convert": ("understudy.cli.convert", "read episodes from one format and write them in another"),
    "curate": ("understudy.cli.curate", "choose what to train on, by rules that say what they kept"),
    "dream": ("understudy.cli.dream", "let agents play in what a world model imagines, in place of the environment"),
    "evaluate": ("understudy.cli.evaluate", "let a policy play held-out tasks, and say how well and how surely"),
    "export": ("understudy.cli.export", "write a trained model as servers load it, adapters merged"),
    "play": ("understudy.cli.play", "play an environment yourself, or watch a policy play it"),
    "quickstart": ("understudy.cli.quickstart", "see an agent go from failing to succeeding, offline, in minutes"),
    "record": ("understudy.cli.record", "record what other programs' agents do, at an OpenAI-compatible endpoint"),
    "run": ("understudy.cli.run", "collect, curate, train and evaluate in one folder; goes on where it was"),
    "serve": ("understudy.cli.serve", "serve an environment to other machines, one session for each episode"),
    "stats": (
        "understudy.cli.stats",
        "count what a data set holds: turns, lengths, rewards, success, shared prefixes",
    ),
    "store add": ("understudy.cli.store.add", "add episodes to a store that many runs can train from"),
    "store export": ("understudy.cli.store.export", "write the episodes of a store as rows of a file"),
    "store release": ("understudy.cli.store.release", "free the rows of a store that a dead run holds"),
    "store show": ("understudy.cli.store.show", "show a store's rows, how often they were trained, and who holds them"),
    "tokens": ("understudy.cli.tokens", "show conversations as the model will see them, coloured by what is trained"),
    "train": ("understudy.cli.train", "train a model as a config says"),
}
"""Verb -> (module, one line for the overview)."""

DESCRIPTION = "Supervised fine-tuning of LLM agents on trajectories: collect, curate, render exactly, train, evaluate."

EXIT_STATUSES = "exit status: 0 all is well; 1 it failed or found a fault; 2 the command or a config is wrong"

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` by default) and return its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # By default torch's threads spin while they wait for one another: where other programs want the cores too, each
    # step of a small model then takes several times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # text that the terminal's encoding lacks is shown, not died of
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run(arguments)
        sys.stdout.flush()
        return status
    except UnderstudyError as error:
        _report(str(error), debug)
        return EXIT_USAGE if isinstance(error, ConfigError | MissingDependency) else EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit finds no pipe
        return EXIT_BROKEN_PIPE
    except OSError as error:  # a full disk or a missing permission is no bug, and its own text names the file
        _report(str(error), debug)
        return EXIT_FAILED


def _run(arguments: list[str]) -> int:
    """Find the verb and run it; without one, print the overview."""
    leading = _top_parser()
    position = next((n for n, argument in enumerate(arguments) if not argument.startswith("-")), len(arguments))
    leading.parse(arguments[:position])
    if position == len(arguments):
        leading.print_help()
        return EXIT_USAGE
    verb, rest = _split_verb(arguments[position:])
    module = importlib.import_module(VERBS[verb][0])
    parser = Parser(f"understudy {verb}", description=module.__doc__, epilog=module.EPILOG)
    _add_debug(parser)
    module.add_arguments(parser)
    status: int = module.run(parser.parse(rest))
    return status


def _split_verb(words: list[str]) -> tuple[str, list[str]]:
    """Return the verb that a command line begins with, and the rest of it."""
    for length in (1, 2):
        if (verb := " ".join(words[:length])) in VERBS:
            return verb, words[length:]
    first = words[0]
    if several := [verb for verb in VERBS if verb.startswith(f"{first} ")]:
        known = f"Known: {', '.join(several)}"
        if not words[1:] or words[1].startswith("-"):
            raise ConfigError(f"{first!r} alone is no command. {known}")
        given = " ".join(words[:2])
        raise ConfigError(f"unknown command {given!r}.{did_you_mean(given, several)} {known}")
    raise ConfigError(f"unknown command {first!r}.{did_you_mean(first, VERBS)} Known: {', '.join(VERBS)}")


def _top_parser() -> Parser:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:{width}}  {summary}" for verb, (_, summary) in VERBS.items())
    parser = Parser(
        "understudy",
        usage="understudy [--version] [--debug] COMMAND ...",
        description=f"{DESCRIPTION}\n\ncommands (understudy COMMAND --help says more):\n{verbs}",
        epilog=EXIT_STATUSES,
    )
    parser.add_argument("--version", action="version", version=f"understudy {__version__}")
    _add_debug(parser)
    return parser


def _add_debug(parser: Parser) -> None:
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")


def _report(message: str, debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()
        return
    from .console import show_error

    show_error(message)

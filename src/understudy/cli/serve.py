"""Serve an environment to other machines.

Clients name it `remote`: understudy collect environment.name=remote environment.arguments.url=http://HOST:PORT.
Every episode has an environment of its own here.
"""

from __future__ import annotations

import argparse

from understudy.registry import TABLES

from .console import messages
from .interrupting import raising_at_sigterm
from .parser import Parser
from .play import read_arguments

EPILOG = """
examples:
  understudy serve code level=2 --port 8200
  understudy serve my_environment.py:MyEnvironment --host 0.0.0.0

exit status: 0 interrupted; 2 the command is wrong, the environment cannot be made, or the port is taken
"""


def add_arguments(parser: Parser) -> None:
    known = ", ".join(TABLES["environments"])
    parser.add_argument("environment", metavar="ENV", help=f"{known}, package.module:Class or file.py:Class")
    parser.add_argument("arguments", nargs="*", metavar="KEY=VALUE", help="arguments of the environment")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=int, default=8200, metavar="P", help="port to listen on, 0 for a free one")
    parser.add_argument("--max-sessions", type=int, default=1024, metavar="N", help="most episodes at once")
    parser.add_argument(
        "--idle-seconds", type=float, default=3600.0, metavar="S", help="close what nobody asks for so long"
    )


def run(args: argparse.Namespace) -> int:
    from understudy.collect.interruptible import run_interruptibly
    from understudy.environments.remote.server import EnvironmentServer, serve

    arguments = read_arguments(args.arguments)
    server = EnvironmentServer(
        args.environment, arguments, max_sessions=args.max_sessions, idle_seconds=args.idle_seconds
    )
    console = messages()

    def on_ready(url: str) -> None:
        console.print(f"serving {args.environment} at {url}; Ctrl-C ends it", markup=False, soft_wrap=True)

    try:
        with raising_at_sigterm():
            run_interruptibly(serve(server, args.host, args.port, on_ready))
    except KeyboardInterrupt:
        console.print("ended", markup=False)
    return 0

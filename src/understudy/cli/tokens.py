"""Show conversations as the model will see them, coloured by what is trained.

Each token is shown once: where turns share a prefix they continue it, and where the chat template rewrites history a
branch says at which token it forks off. Nothing is shown that is not a token of the model, so what looks wrong here is
trained wrong.
"""

from __future__ import annotations

import argparse
import itertools
from typing import TYPE_CHECKING, Any

from understudy.errors import ConfigError

from .console import messages, results
from .parser import Parser, one_of, positive_int
from .reading import add_source_arguments, open_source, show_rejected
from .rendering import add_model_arguments, make_renderer

if TYPE_CHECKING:
    from understudy.rendering import Rendered, Renderer
    from understudy.types import Episode, Trajectory

EPILOG = """
examples:
  understudy tokens rows.jsonl --model Qwen/Qwen3-8B
  understudy tokens rows.jsonl --model Qwen/Qwen3-8B --row 17 --ids
  understudy tokens rows.jsonl --model Qwen/Qwen3-8B --objective combined --html page.html --num-rows 20

exit status: 0 shown; 1 a row could not be read; 2 the command is wrong
"""


def add_arguments(parser: Parser) -> None:
    add_source_arguments(parser)
    add_model_arguments(parser)
    parser.add_argument("--row", type=positive_int, default=1, metavar="N", help="first row to show (default: 1)")
    parser.add_argument("--num-rows", type=positive_int, default=1, metavar="N", help="rows to show (default: 1)")
    parser.add_argument(
        "--objective", default="behavioral_cloning", metavar="O", help="objective that weighs the tokens"
    )
    parser.add_argument("--ids", action="store_true", help="show token ids as well")
    parser.add_argument("--html", metavar="FILE", help="write a self-contained page instead of printing")
    parser.add_argument(
        "--color", type=one_of("auto", "always"), default="auto", help="colour piped output too: always"
    )


def run(args: argparse.Namespace) -> int:
    from understudy.registry import create

    objective = create("objectives", args.objective)
    renderer = make_renderer(args, on_refusal="context", observations=True)
    shown = [
        _Shown.of(renderer, objective, episode, trajectory, place)
        for episode, place in _rows(args)
        for trajectory in episode.trajectories
    ]
    if not shown:
        raise ConfigError(f"there is no row {args.row} in {', '.join(args.src)}")
    if args.html:
        _write_page(args, shown)
        return 0
    console = results()
    if args.color == "always":  # whatever TERM and NO_COLOR say of the terminal that is not there
        console = type(console)(
            width=console.width, highlight=False, force_terminal=True, color_system="standard", no_color=False
        )
    from rich.text import Text

    from understudy.viewer import token_text

    for view in shown:
        console.rule(Text(view.heading, style="rule.text"))
        console.print(token_text(view.groups, show_ids=args.ids), soft_wrap=True)
        for name, fact in view.facts.items():
            console.print(f"{name}: {fact}", markup=False, soft_wrap=True)
    return 0


def _rows(args: argparse.Namespace) -> list[tuple[Episode, str]]:
    """Read up to the last wanted row and return the wanted ones with their places."""
    reader = open_source(args)
    found: list[tuple[Episode, str]] = []
    for episode in itertools.islice(reader, args.limit):
        if reader.num_rows >= args.row + args.num_rows:
            break
        if reader.num_rows >= args.row:
            found.append((episode, reader.place))
    show_rejected(reader, args.rejects)
    return found


class _Shown:
    """One trajectory ready to be shown."""

    def __init__(self, heading: str, facts: dict[str, str], groups: list[Any]) -> None:
        self.heading, self.facts, self.groups = heading, facts, groups

    @classmethod
    def of(cls, renderer: Renderer, objective: Any, episode: Episode, trajectory: Trajectory, place: str) -> _Shown:
        from understudy.viewer import token_groups

        rendered = renderer.render(trajectory)
        tree = rendered.tree
        terms = objective.weigh(tree, trajectory, episode)
        weights = sum(objective.coefficients[name] * term for name, term in terms.items())
        groups = list(token_groups(tree, weights, renderer.tokenizer.backend))
        heading = place if len(episode.trajectories) == 1 else f"{place} · {trajectory.agent}"
        return cls(heading, _facts(rendered, weights), groups)


def _facts(rendered: Rendered, weights: Any) -> dict[str, str]:
    import numpy as np

    tree = rendered.tree
    facts = {
        "turns": f"{len(rendered.turns)} exact, {len(rendered.refusals)} refused",
        "tokens": f"{tree.num_tokens:,} in {len(tree.leaves())} branches "
        f"({tree.num_inserted_tokens:,} as one row per turn), {int(np.count_nonzero(weights)):,} trained",
    }
    facts |= {f"refused, turn {refusal.turn}": str(refusal) for refusal in rendered.refusals}
    if rendered.control_strings:
        places = [f"{found.text!r} in a {found.role} message" for found in rendered.control_strings]
        facts["control tokens in text"] = "; ".join(places)
    return facts


def _write_page(args: argparse.Namespace, shown: list[_Shown]) -> None:
    from understudy.runs import write_atomically
    from understudy.viewer import token_page

    title = f"Tokens of {', '.join(args.src)} for {args.model}"
    write_atomically(args.html, token_page(title, [(view.heading, view.facts, view.groups) for view in shown]))
    messages().print(f"wrote {args.html}", markup=False, soft_wrap=True)

"""Check that every turn of a data set trains the model on exactly what its server would have computed.

Renders all rows, compares the ids of each row's last call with a plain encode of the same text (--verify-every 1: of
all its calls), and looks at the finished trees: the path to each target, and that nothing else is supervised. Turns for
which that cannot be had are refused, with a code and a mend. Recorded token ids are used as they are, and held against
the rendering.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from .console import messages, results
from .parser import Parser, positive_int
from .reading import add_source_arguments, episodes_with_progress, open_source, show_rejected
from .rendering import add_model_arguments, make_renderer

if TYPE_CHECKING:
    from rich.console import Console

    from understudy.rendering import RenderAccount, Renderer

EPILOG = """
examples:
  understudy check rows.jsonl --model Qwen/Qwen3-8B
  understudy check data/ --model ./my-model --max-length 16384 --json > check.json
  understudy check rows.jsonl --model ./my-model --set template_arguments.enable_thinking=false

exit status: 0 every turn is exact; 1 a turn is refused or would be trained wrongly, or a row could not be read;
2 the command is wrong
"""


def add_arguments(parser: Parser) -> None:
    add_source_arguments(parser)
    add_model_arguments(parser)
    parser.add_argument(
        "--max-length",
        type=positive_int,
        metavar="N",
        help="count rows with longer paths (default: the tokenizer's own)",
    )
    parser.add_argument(
        "--verify-every",
        type=positive_int,
        default=64,
        metavar="N",
        help="compare one text in N with a plain encode, besides the last one of every row (default: 64)",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    from understudy.rendering import RenderAccount

    renderer = make_renderer(args, on_refusal="skip", audit=True, verify_every=args.verify_every)
    account = RenderAccount(max_length=args.max_length or renderer.tokenizer.max_length)
    reader = open_source(args)
    for episode in episodes_with_progress(reader, args, "checking"):
        account.add(renderer, episode, reader.place)
    if args.json:
        facts = {"model": args.model, "fingerprint": renderer.fingerprint(), "stop_tokens": renderer.stops.texts}
        print(json.dumps(facts | account.report(), indent=2, ensure_ascii=False))
    else:
        _show(renderer, account)
    show_rejected(reader, args.rejects)
    return 0 if account.is_clean else 1


def _show(renderer: Renderer, account: RenderAccount) -> None:
    from rich.table import Table

    console = results()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
    for name, count, note in _rows(account):
        table.add_row(name, f"{count:,}", note)
    console.print(table)
    _show_tokens(console, account)
    _show_examples(console, account)
    stops = ", ".join(renderer.stops.texts)
    console.print(f"stop tokens: {stops}; fingerprint {renderer.fingerprint()}", markup=False, soft_wrap=True)
    if renderer.reads_clock:
        text = f"the template prints the date; the clock is pinned at {renderer.profile.clock} (--set clock=…)"
        messages().print(text, markup=False, soft_wrap=True)


def _rows(account: RenderAccount) -> list[tuple[str, int, str]]:
    """Return the table of counts: name, count, note. Zero counts of rarities are left out."""
    share = f"{100 * account.num_exact / account.num_turns:.1f}%" if account.num_turns else ""
    branches = f"{account.num_branches / account.num_rows:.1f} per row" if account.num_rows else ""
    rows = [
        ("rows", account.num_rows, ""),
        ("turns", account.num_turns, ""),
        ("  exact", account.num_exact, share),
        ("  from recorded ids", account.num_recorded, f"{account.num_audits_equal:,} equal to the rendering"),
        ("  context only", account.num_context_only, "weight 0"),
        *((f"  refused {code}", count, "") for code, count in account.refused.most_common()),
        ("  wrong", account.num_wrong, "please report this"),
        ("supervised tokens", account.num_supervised_tokens, ""),
        ("branches", account.num_branches, branches),
        ("longest path", account.longest, "tokens"),
        ("rows too long", account.num_too_long, f"more than {account.max_length or 0:,} tokens"),
        ("control strings in text", account.num_control_strings, "messages"),
        ("context not printed", account.num_dropped_context, "messages that the template leaves out"),
        ("tools not printed", account.num_dropped_tools, "trajectories whose tools the template leaves out"),
    ]
    always = {"rows", "turns", "  exact", "supervised tokens", "branches", "longest path"}
    return [row for row in rows if row[1] or row[0] in always]


def _show_tokens(console: Console, account: RenderAccount) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title="tokens to compute", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("as one row per turn", "as flat rows (inexact)", "as trees"):
        table.add_column(column, justify="right")
    flat = f"{account.num_flat_tokens:,}"
    if account.num_flat_unknown:
        flat += f" + {account.num_flat_unknown} refused"
    table.add_row(f"{account.num_turn_tokens:,}", flat, f"{account.num_tree_tokens:,}")
    console.print(table)


def _show_examples(console: Console, account: RenderAccount) -> None:
    from understudy.rendering import MENDS, RefusalCode

    for kind, examples in account.examples.items():
        console.print(f"{kind}, for example:", markup=False)
        for example in examples:
            console.print(f"  {example}", markup=False, soft_wrap=True)
        if kind in account.refused:
            console.print(f"  mend: {MENDS[RefusalCode(kind)]}", markup=False, soft_wrap=True)

"""Count what a data set holds.

Episodes, turns, messages, tools and calls, lengths, rewards, success, and the share of characters (and tokens) that an
earlier conversation already had as its prefix, which a trainer need not compute again. Overall, and for each
environment and agent. One pass, in memory that does not grow with the data.

Lengths in tokens are those of the messages' own text; what a chat template puts around it is counted by `understudy
check`. Success is what the data says; where it says nothing, it is unknown and not guessed from the reward.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .console import results
from .parser import Parser
from .reading import add_source_arguments, episodes_with_progress, open_source, show_rejected

if TYPE_CHECKING:
    from rich.table import Table

    from understudy.formats import EpisodeReader

EPILOG = """
examples:
  understudy stats episodes.jsonl
  understudy stats data/ --model Qwen/Qwen3-8B --by environment
  understudy stats rows.parquet --json | jq .overall.success
  understudy stats runs/*.jsonl --by policy --by metadata.difficulty

exit status: 0 counted; 1 a row could not be read; 2 the command is wrong
"""

MAX_GROUPS_SHOWN = 20
MAX_NAMES_SHOWN = 8


def add_arguments(parser: Parser) -> None:
    add_source_arguments(parser)
    parser.add_argument("--model", metavar="M", help="model folder or hub name whose tokenizer counts tokens")
    parser.add_argument(
        "--by",
        action="append",
        metavar="DIM",
        help="group by environment, agent, policy, split, stop_reason or metadata.KEY; may be given again "
        "(default: environment and agent)",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    from understudy.curate import EpisodeStatistics

    reader = open_source(args)
    encode = None
    if args.model:
        from understudy.rendering import load_tokenizer

        encode = load_tokenizer(args.model).encode
    statistics = EpisodeStatistics(by=args.by or ("environment", "agent"), encode=encode)
    for episode in episodes_with_progress(reader, args, "counting"):
        statistics.add(episode)
    report = _account(args, reader) | statistics.report()
    if args.json:
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        _show(report)
    show_rejected(reader, args.rejects)
    return 0


def _account(args: argparse.Namespace, reader: EpisodeReader) -> dict[str, Any]:
    """Say what was read, as what, and with which tokenizer."""
    return {
        "source": args.src,
        "format": reader.detection.reason if reader.detection else None,
        "tokenizer": args.model,
        "num_rows": reader.num_rows,
        "num_rows_rejected": reader.num_rejected,
    }


def _show(report: dict[str, Any]) -> None:
    console = results()
    overall = report["overall"]
    source = ", ".join(report["source"])
    console.print(f"{source} (read as {report['format']})", markup=False, soft_wrap=True)
    console.print(_overview(overall))
    console.print(_lengths(overall))
    for dimension, groups in report["by"].items():
        console.print(_groups(dimension, groups))
        if len(groups) > MAX_GROUPS_SHOWN:
            console.print(f"and {len(groups) - MAX_GROUPS_SHOWN} more; --json has them all")
    if report["by"]:
        console.print("turns, lengths and rewards of groups are means of one episode")


def _overview(overall: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("episodes", f"{overall['num_episodes']:,} ({overall['num_trajectories']:,} trajectories)")
    table.add_row("turns", f"{overall['num_turns']:,}")
    table.add_row("messages", _counts(overall["num_messages"], overall["messages_by_role"]))
    table.add_row("tool calls", _counts(overall["num_tool_calls"], overall["tool_calls_by_name"]))
    for unit in overall["shared_prefix"]:
        shared = _percent(overall["shared_prefix"][unit])
        table.add_row(unit, f"{overall[f'num_{unit}']:,}, {shared} of them in shared prefixes")
    table.add_row("success", _success(overall))
    table.add_row("errors", f"{overall['num_errors']:,}")
    return table


def _lengths(overall: dict[str, Any]) -> Table:
    """Return the table of what one episode has."""
    columns = ("mean", "min", "p10", "p50", "p90", "p99", "max")
    table = _table("per episode", "", columns)
    distributions = overall["per_episode"] | {"reward": overall["reward"]}
    for name, summary in distributions.items():
        if summary["count"]:
            table.add_row(name.replace("_", " "), *(_number(summary[column]) for column in columns))
    return table


def _groups(dimension: str, groups: dict[str, dict[str, Any]]) -> Table:
    unit = "tokens" if any("num_tokens" in group for group in groups.values()) else "characters"
    table = _table(f"by {dimension}", "", ("episodes", "turns", unit, "reward", "success", "shared prefix"))
    for name, group in list(groups.items())[:MAX_GROUPS_SHOWN]:
        table.add_row(
            name,
            f"{group['num_episodes']:,}",
            _number(group["per_episode"]["turns"]["mean"]),
            _number(group["per_episode"][unit]["mean"]),
            _number(group["reward"]["mean"]),
            _success(group),
            _percent(group["shared_prefix"][unit]),
        )
    return table


def _table(title: str, first: str, columns: Iterable[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _counts(total: int, by_name: dict[str, int]) -> str:
    shown = list(by_name.items())[:MAX_NAMES_SHOWN]
    names = [f"{name} {count:,}" for name, count in shown]
    if len(by_name) > len(shown):
        names.append(f"{len(by_name) - len(shown)} more names")
    return f"{total:,}" + (f": {', '.join(names)}" if names else "")


def _success(group: dict[str, Any]) -> str:
    success = group["success"]
    if not success["num_known"]:
        return "unknown"
    text = f"{_percent(success['rate'])} of {success['num_known']:,}"
    unknown = group["num_episodes"] - success["num_known"]
    return f"{text}, {unknown:,} unknown" if unknown else text


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:,.3g}"

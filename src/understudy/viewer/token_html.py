"""Token trees as one self-contained HTML page: no script or style from elsewhere, so it can be mailed and kept."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from understudy.types import SpanKind

from .token_groups import TokenGroup

_CLASSES = {SpanKind.CONTEXT: "context", SpanKind.ACTION: "action", SpanKind.OBSERVATION: "observation"}

LONG_CONTEXT_CHARS = 800

_STYLE = """
:root { color-scheme: light dark; --dim: #777; --line: #ccc; --action: #0a7d32; --action-bg: #d9f5e1;
  --observation: #0b57d0; --observation-bg: #dde9ff; --branch: #a0307a; --mark: #fff3cd; }
@media (prefers-color-scheme: dark) { :root { --dim: #999; --line: #444; --action: #7ee2a0; --action-bg: #10351d;
  --observation: #9cc2ff; --observation-bg: #12294d; --branch: #f19ad0; --mark: #4a3c00; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line); border-radius: 6px;
  padding: 1rem; font: 13px/1.55 ui-monospace, monospace; }
table { border-collapse: collapse; } td { padding: .1rem 1rem .1rem 0; }
.context { color: var(--dim); }
.action, .observation { border-bottom: 1px dotted currentColor; }
.trained.action { color: var(--action); background: var(--action-bg); font-weight: 600; }
.trained.observation { color: var(--observation); background: var(--observation-bg); font-weight: 600; }
.control { font-style: italic; }
.branch { display: block; color: var(--branch); border-top: 1px solid currentColor; margin: .6rem 0 .2rem; }
.ids { display: none; color: #08a; font-size: 11px; } .show-ids .ids { display: inline; }
.fold .long { display: block; max-height: 9rem; overflow-y: auto; border-left: 3px solid var(--line);
  padding-left: .6rem; }
.swatch { padding: 0 .4rem; border-radius: 3px; }
""".strip()

_LEGEND = (
    '<p><span class="swatch trained action">trained action</span> '
    '<span class="swatch trained observation">trained observation</span> '
    '<span class="swatch action">action, not trained</span> <span class="swatch context">context</span> '
    '<label><input type="checkbox" onchange="document.body.classList.toggle(\'show-ids\', this.checked)"> ids</label> '
    '<label><input type="checkbox" checked onchange="document.body.classList.toggle(\'fold\', this.checked)"> '
    "fold long context</label> "
    "(hover for kind, turn, weight, position and ids)</p>"
)


def token_page(title: str, conversations: Sequence[tuple[str, Mapping[str, str], Iterable[TokenGroup]]]) -> str:
    """Return the page.

    Args:
        conversations: for each tree its heading, facts to show as a table, and its groups.
    """
    sections = [_section(heading, facts, groups) for heading, facts, groups in conversations]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{html.escape(title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body class="fold">\n'
        f"<h1>{html.escape(title)}</h1>\n{_LEGEND}\n" + "\n".join(sections) + "\n</body>\n</html>\n"
    )


def _section(heading: str, facts: Mapping[str, str], groups: Iterable[TokenGroup]) -> str:
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in facts.items())
    body = "".join(map(_group, groups))
    return f"<h2>{html.escape(heading)}</h2>\n<table>{rows}</table>\n<pre>{body}</pre>"


def _group(group: TokenGroup) -> str:
    classes = [_CLASSES[group.kind]]
    if group.weight and group.kind != SpanKind.CONTEXT:
        classes.append("trained")
    if group.is_control:
        classes.append("control")
    if group.kind == SpanKind.CONTEXT and len(group.text) > LONG_CONTEXT_CHARS:
        classes.append("long")
    ids = " ".join(map(str, group.ids))
    facts = [_CLASSES[group.kind], f"position {group.depth}", f"weight {group.weight:g}", f"ids {_shortened(ids)}"]
    if group.turn >= 0:
        facts.insert(1, f"turn {group.turn}")
    branch = f'<span class="branch">branch at token {group.depth:,}</span>' if group.is_branch else ""
    # A line feed right after <pre> is dropped by browsers; inside a span it is kept. A bare carriage return is read as
    # a line feed.
    text = html.escape(group.text).replace("\r", "&#13;")
    return (
        f'{branch}<span class="{" ".join(classes)}" title="{html.escape(", ".join(facts))}">{text}'
        f'</span><span class="ids">⟨{ids}⟩</span>'
    )


def _shortened(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[:limit] + " …"

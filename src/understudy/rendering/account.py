"""The account of a check: what rendering a data set gave, counted, and held against plain encodes once more."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from understudy.types import Episode, SpanKind, TokenTree, Trajectory

from .refusal import MENDS, Refusal, RefusalCode, TurnRefused
from .rendered import Rendered
from .renderer import Renderer

MAX_EXAMPLES = 5


@dataclass(slots=True)
class RenderAccount:
    """Counts over many episodes; `examples` keeps the first few of each kind with their place.

    Args:
        max_length: paths with more tokens than this count as too long; None counts none.
    """

    max_length: int | None = None
    num_rows: int = 0
    num_turns: int = 0
    num_exact: int = 0
    num_recorded: int = 0
    num_context_only: int = 0
    num_wrong: int = 0
    num_supervised_tokens: int = 0
    num_branches: int = 0
    num_flat_tokens: int = 0
    num_flat_unknown: int = 0
    num_turn_tokens: int = 0
    num_tree_tokens: int = 0
    num_control_strings: int = 0
    num_dropped_context: int = 0
    num_dropped_tools: int = 0
    num_too_long: int = 0
    longest: int = 0
    num_audited: int = 0
    num_audits_equal: int = 0
    refused: Counter[RefusalCode] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """True when no turn was refused and none would be trained wrongly."""
        return not self.refused and not self.num_wrong

    def add(self, renderer: Renderer, episode: Episode, place: str) -> None:
        """Render an episode with `renderer` (whose policy is not to fail) and count what it gave."""
        self.num_rows += 1
        for trajectory in episode.trajectories:
            rendered = renderer.render(trajectory)
            renderer.segments.verify_last()
            self._count(rendered, trajectory, place)
            self._verify(rendered, place)
            try:
                self.num_flat_tokens += renderer.flat_length(trajectory)
            except TurnRefused:
                self.num_flat_unknown += 1

    def _count(self, rendered: Rendered, trajectory: Trajectory, place: str) -> None:
        tree = rendered.tree
        actions = [turn for turn in trajectory.turns if turn.action is not None]
        self.num_turns += len(actions)
        self.num_context_only += sum(turn.weight == 0 for turn in actions)
        self.num_exact += len(rendered.turns)
        self.num_recorded += sum(turn.how == "recorded" for turn in rendered.turns)
        self.ways.update(turn.how for turn in rendered.turns)
        self.num_supervised_tokens += int(np.count_nonzero(tree.action_weights()))
        self.num_branches += len(tree.leaves())
        self.num_turn_tokens += tree.num_inserted_tokens
        self.num_tree_tokens += tree.num_tokens
        self._count_lengths(tree, place)
        for refusal in rendered.refusals:
            self.refused[refusal.code] += 1
            self._example(refusal.code, place, str(_without_mend(refusal)))
        self.num_control_strings += len(rendered.control_strings)
        for control in rendered.control_strings:
            self._example(
                "control strings", place, f"turn {control.turn}: {control.text!r} in a {control.role} message"
            )
        self.num_dropped_context += len(rendered.dropped_context)
        for dropped in rendered.dropped_context:
            text = f"turn {dropped.turn}: the template does not print a {dropped.role} message: {dropped.excerpt!r}"
            self._example("dropped context", place, text)
        self.num_dropped_tools += rendered.drops_tools
        if rendered.drops_tools:
            names = dict.fromkeys(tool.name for turn in trajectory.turns for tool in turn.tools)
            self._example("dropped tools", place, f"the template prints none of {', '.join(names)}")
        self.num_audited += len(rendered.audits)
        for audit in rendered.audits:
            self.num_audits_equal += audit.equal
            if not audit.equal:
                why = audit.refusal or f"first difference at token {audit.first_difference}"
                self._example("recorded ids differ", place, f"turn {audit.turn}: {why}")

    def _count_lengths(self, tree: TokenTree, place: str) -> None:
        longest = int(tree.depth.max()) + 1 if tree.num_tokens else 0
        self.longest = max(self.longest, longest)
        if self.max_length is not None and longest > self.max_length:
            self.num_too_long += 1
            self._example("too long", place, f"{longest:,} tokens, more than {self.max_length:,}")

    def _verify(self, rendered: Rendered, place: str) -> None:
        """Hold the finished tree against the promise: the path to each target, the target itself, and nothing else."""
        tree = rendered.tree
        supervised = np.zeros(tree.num_tokens, bool)
        for turn in rendered.turns:
            path = tree.path(tree.sequences[turn.sequence][0])
            supervised[path[turn.num_prompt_tokens :]] = True
            ids = tree.ids[path]
            if len(ids) != turn.num_prompt_tokens + turn.num_target_tokens or crc32(ids.tobytes()) != turn.checksum:
                self.num_wrong += 1
                self._example("wrong", place, f"turn {turn.turn}: the tree does not give the turn back")
        spans = [tokens for span, tokens in tree.spans() if span.kind == SpanKind.ACTION]
        trained = np.zeros(tree.num_tokens, bool)
        for tokens in spans:
            trained[tokens] = True
        if not np.array_equal(trained, supervised):
            self.num_wrong += 1
            self._example("wrong", place, "tokens outside the targets are supervised")

    def _example(self, kind: str, place: str, text: str) -> None:
        kept = self.examples.setdefault(str(kind), [])
        if len(kept) < MAX_EXAMPLES:
            kept.append(f"{place}: {text}")

    def report(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "rows": self.num_rows,
            "turns": self.num_turns,
            "turns_exact": self.num_exact,
            "turns_recorded": self.num_recorded,
            "turns_context_only": self.num_context_only,
            "turns_wrong": self.num_wrong,
            "turns_refused": {str(code): count for code, count in self.refused.most_common()},
            "mends": {str(code): MENDS[code] for code in self.refused},
            "ways": dict(self.ways.most_common()),
            "supervised_tokens": self.num_supervised_tokens,
            "branches_per_row": self.num_branches / self.num_rows if self.num_rows else None,
            "tokens": {"flat_rows": self.num_flat_tokens, "per_turn_rows": self.num_turn_tokens}
            | {"tree": self.num_tree_tokens},
            "flat_rows_refused": self.num_flat_unknown,
            "control_strings": self.num_control_strings,
            "dropped_context": self.num_dropped_context,
            "dropped_tools": self.num_dropped_tools,
            "longest_path": self.longest,
            "rows_too_long": self.num_too_long,
            "recorded_ids": {"audited": self.num_audited, "equal": self.num_audits_equal},
            "examples": self.examples,
        }


def _without_mend(refusal: Refusal) -> str:
    excerpt = f" at {refusal.excerpt!r}" if refusal.excerpt else ""
    return f"turn {refusal.turn}: {refusal.reason}{excerpt}"

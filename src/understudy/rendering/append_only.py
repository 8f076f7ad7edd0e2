"""Templates that only ever append: one render of a whole conversation holds the prompts of all its turns.

Rendering every prompt anew costs a number of messages that is quadratic in the turns. Many templates (ChatML, Llama 3)
write one message after the other and never look ahead, so the text after k messages is the beginning of the text after
more, followed by a tail that does not depend on them. This module proves that of a template from its syntax tree, and
has no opinion on the others: whatever is not understood is not append-only. The proof rests on four facts.

1. One loop at the top level goes over the messages, or over a slice ``messages[n:]`` of them.
2. Messages are looked at nowhere else, except by a constant index from the front, and the loop looks neither at its
   length nor at the next message.
3. `add_generation_prompt` is read after the loop only.
4. What stands after the loop reads no state that the loop could have changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jinja2 import nodes

from .template_code import PAID_LOOP_FILTER

MARK_FUNCTION = "understudy_mark"

_LOOP_ATTRIBUTES_BEHIND = frozenset(["index", "index0", "first", "previtem"])
_STATEFUL_OR_FOREIGN = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block)
_STATEFUL_NAMES = frozenset(["cycler", "joiner", "lipsum"])


@dataclass(frozen=True, slots=True)
class AppendOnlyLoop:
    """The loop over the messages, where it stands in the template's body, and how many messages must stand before.

    With fewer messages than `min_context`, an index from the front might find nothing.
    """

    loop: nodes.For
    position: int
    min_context: int


def find_append_only_loop(tree: nodes.Template) -> AppendOnlyLoop | None:
    """Return the template's loop over the messages if the template is append-only, else None."""
    aliases = _aliases(tree)
    loops = [(n, node) for n, node in enumerate(tree.body) if isinstance(node, nodes.For) and _over(node, aliases)]
    if len(loops) != 1 or any(True for _ in tree.find_all(_STATEFUL_OR_FOREIGN)):
        return None
    position, loop = loops[0]
    before, after = tree.body[:position], tree.body[position + 1 :]
    if not isinstance(loop.target, nodes.Name) or loop.test is not None or loop.else_ or loop.recursive:
        return None
    if any(name.name in _STATEFUL_NAMES for name in tree.find_all(nodes.Name)):
        return None
    if (
        not _looks_behind_only(loop)
        or _reads(before, "add_generation_prompt")
        or _reads([loop], "add_generation_prompt")
    ):
        return None
    min_context = _min_context(tree, loop, aliases)
    if min_context is None or not _tail_is_constant(before, loop, after):
        return None
    return AppendOnlyLoop(loop, position, min_context)


def with_marks(tree: nodes.Template, found: AppendOnlyLoop) -> nodes.Template:
    """Change the tree so that it calls the mark function with each message as its turn comes, and with None after."""
    assert isinstance(found.loop.target, nodes.Name)
    target = nodes.Name(found.loop.target.name, "load")
    found.loop.body.insert(0, _mark(target, found.loop.lineno))
    tree.body.insert(found.position + 1, _mark(nodes.Const(None), found.loop.lineno))
    return tree


def _mark(argument: nodes.Expr, lineno: int) -> nodes.Output:
    call = nodes.Call(nodes.Name(MARK_FUNCTION, "load"), [argument], [], None, None)
    return nodes.Output([call], lineno=lineno)


def _aliases(tree: nodes.Template) -> dict[str, int]:
    """Return the names that only ever hold the messages from some index on, with that index at the most."""
    values: dict[str, list[nodes.Node]] = {}
    for assignment in tree.find_all(nodes.Assign):
        if isinstance(assignment.target, nodes.Name):
            values.setdefault(assignment.target.name, []).append(assignment.node)
    aliases = {"messages": 0}
    for _ in values:  # one round for each name is enough for any chain of them
        for name, nodes_ in values.items():
            starts = [_slice_start(value, aliases) for value in nodes_]
            known = [start for start in starts if start is not None]
            if len(known) == len(starts):
                # A template assigns at most once on each way through, so the starts do not add up along a name.
                aliases[name] = max(known)
            elif name in aliases:
                return {}
    return aliases


def _slice_start(value: nodes.Node, aliases: dict[str, int]) -> int | None:
    """Return the index from which ``alias`` or ``alias[n:]`` holds the messages; None for anything else."""
    if isinstance(value, nodes.Name):
        return aliases.get(value.name)
    if not isinstance(value, nodes.Getitem) or not isinstance(value.node, nodes.Name):
        return None
    start = aliases.get(value.node.name)
    cut = value.arg
    if start is None or not isinstance(cut, nodes.Slice) or cut.stop is not None or cut.step is not None:
        return None
    if not isinstance(cut.start, nodes.Const) or not isinstance(cut.start.value, int) or cut.start.value < 0:
        return None
    # ``messages = messages[1:]`` refers to the messages as they came, whatever this name holds elsewhere.
    return cut.start.value + (0 if value.node.name == "messages" else start)


def _over(loop: nodes.For, aliases: dict[str, int]) -> bool:
    iterated = _iterated(loop)
    return isinstance(iterated, nodes.Name) and iterated.name in aliases


def _iterated(loop: nodes.For) -> nodes.Node | None:
    """Return what a loop goes over, without the filter that pays for it."""
    iterated: nodes.Node | None = loop.iter
    if isinstance(iterated, nodes.Filter) and iterated.name == PAID_LOOP_FILTER:
        iterated = iterated.node
    return iterated


def _looks_behind_only(loop: nodes.For) -> bool:
    """True when the body uses `loop` only for attributes that do not depend on what comes after.

    A loop inside the body has a `loop` of its own, which cannot see the messages; what it iterates over is evaluated
    outside of it.
    """

    def outside_inner_loops(node: nodes.Node) -> Iterator[nodes.Node]:
        for child in node.iter_child_nodes():
            inner = [child.iter, *child.else_] if isinstance(child, nodes.For) else [child]
            for part in inner:
                yield part
                yield from outside_inner_loops(part)

    inside = list(outside_inner_loops(loop))
    behind = {
        id(found.node) for found in inside if isinstance(found, nodes.Getattr) and found.attr in _LOOP_ATTRIBUTES_BEHIND
    }
    return all(id(found) in behind for found in inside if isinstance(found, nodes.Name) and found.name == "loop")


def _reads(body: Sequence[nodes.Node], name: str) -> bool:
    return any(found.name == name for node in body for found in node.find_all(nodes.Name))


def _min_context(tree: nodes.Template, loop: nodes.For, aliases: dict[str, int]) -> int | None:
    """Return how many messages the constant indices need; None when the messages are looked at in any other way."""
    allowed: set[int] = {id(_iterated(loop))}
    needed = max(1, aliases[_iterated(loop).name])  # type: ignore[union-attr]
    for item in tree.find_all(nodes.Getitem):
        if not isinstance(item.node, nodes.Name) or item.node.name not in aliases:
            continue
        if isinstance(item.arg, nodes.Const) and isinstance(item.arg.value, int) and item.arg.value >= 0:
            allowed.add(id(item.node))
            needed = max(needed, max(aliases.values()) + item.arg.value + 1)
    inside = {id(assignment) for assignment in loop.find_all(nodes.Assign)}
    for assignment in tree.find_all(nodes.Assign):
        if isinstance(assignment.target, nodes.Name) and assignment.target.name in aliases:
            if id(assignment) in inside:
                return None
            value = assignment.node
            allowed.add(id(assignment.target))
            allowed.add(id(value.node if isinstance(value, nodes.Getitem) else value))
    uses = [name for name in tree.find_all(nodes.Name) if name.name in aliases]
    return needed if all(id(name) in allowed for name in uses) else None


def _tail_is_constant(before: Sequence[nodes.Node], loop: nodes.For, after: Sequence[nodes.Node]) -> bool:
    """True when what follows the loop reads nothing that the loop, or a macro called in it, could have changed."""
    changed = {reference.name for node in [*before, loop] for reference in node.find_all(nodes.NSRef)}
    changed |= {name.name for name in loop.find_all(nodes.Name) if name.ctx == "store"}
    changed |= {node.name for node in before if isinstance(node, nodes.Macro)}
    changed |= {macro.name for node in [*before, loop] for macro in node.find_all(nodes.Macro)}
    read = {name.name for node in after for name in [*node.find_all(nodes.Name)]}
    return not read & changed

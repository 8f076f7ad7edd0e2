"""How a chat template's syntax tree becomes Python: jinja2's way, with look-ups in place and made values paid for.

Three changes to jinja2's own code generator. None changes what a template prints.

- ``message.role`` and ``loop.index0`` are looked up in place where `message` is a plain dict and `loop` a loop, which
  gives what the sandbox's `getattr` gives at a fraction of its cost; so are values of namespaces and common tests.
- An expression that makes a text or a container hands it to the sandbox, which counts its size.
- Every loop, macro, call block and block pays for the size of its body each time it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, operators
from jinja2.exceptions import TemplateAssertionError

PAID_LOOP_FILTER = "understudy_paid_loop"
PAY_FILTER = "understudy_pay"
NODE_WORK = 4
"""What running one node of a body costs, in characters made."""

MAX_ADDED = 8
"""How many texts may be added before the sum is counted, so it grows to a few times the largest value at most."""
_BODIES = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)
NAMESPACE_VALUES = "_Namespace__attrs"
"""Where jinja2 keeps the values of a namespace."""

_DICT_ATTRIBUTES = frozenset(dir(dict))
_INLINE_TESTS = {"string": ("isinstance(", ", str)"), "defined": ("(not isinstance(", ", Undefined))")}
LOOP_ATTRIBUTES = frozenset(
    ("index", "index0", "first", "last", "length", "previtem", "nextitem", "revindex", "revindex0")
)
"""Attributes of `loop` that are plain values."""


def let_bodies_pay(tree: nodes.Template) -> nodes.Template:
    """Change the tree so that whatever can run more than once pays each time: loops, macros, call blocks and blocks.

    Raises:
        TemplateAssertionError: the template switches escaping, for which nothing here is written.
    """
    switch = tree.find(nodes.EvalContextModifier)
    if switch is not None:
        raise TemplateAssertionError("autoescape is not for chat templates", switch.lineno)
    bodies: list[Any] = list(tree.find_all(_BODIES))
    for body in bodies:
        work = nodes.Const(NODE_WORK * (1 + len(list(_own_nodes(body.body)))))
        if isinstance(body, nodes.For) and not body.recursive:
            body.iter = nodes.Filter(body.iter, PAID_LOOP_FILTER, [work], [], None, None, lineno=body.lineno)
        else:
            pay = nodes.Filter(work, PAY_FILTER, [], [], None, None, lineno=body.lineno)
            body.body.insert(0, nodes.ExprStmt(pay, lineno=body.lineno))
    return tree


def _own_nodes(body: Sequence[nodes.Node]) -> Iterator[nodes.Node]:
    """Yield the nodes that run once with the body: not those in bodies inside of it, which pay for themselves."""
    waiting = list(body)
    while waiting:
        node = waiting.pop()
        yield node
        inside = ("body",) if isinstance(node, _BODIES) else ()
        waiting.extend(node.iter_child_nodes(exclude=inside))


class BoundedCode(CodeGenerator):
    """Writes the Python of a template for `BoundedSandbox`."""

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:
        calls = [
            (found.target, found.node) for found in node.find_all(nodes.Assign) if isinstance(found.node, nodes.Call)
        ]
        self._namespaces = {
            target.name
            for target, call in calls
            if isinstance(target, nodes.Name) and isinstance(call.node, nodes.Name) and call.node.name == "namespace"
        }
        super().visit_Template(node, frame)

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:
        if node.attr in _DICT_ATTRIBUTES or node.attr.startswith("_") or not node.attr.isidentifier():
            super().visit_Getattr(node, frame)
            return
        name, key = self.temporary_identifier(), repr(node.attr)
        absent = f"environment.undefined(obj={name}, name={key})"
        if node.attr in LOOP_ATTRIBUTES:
            found, kind = f"{name}.{node.attr}", "LoopContext"
        elif isinstance(node.node, nodes.Name) and node.node.name in self._namespaces:
            values = self.temporary_identifier()
            held = f"{values} := object.__getattribute__({name}, {NAMESPACE_VALUES!r})"
            found, kind = f"({values}[{key}] if {key} in ({held}) else {absent})", "environment.globals['namespace']"
        else:
            found, kind = f"({name}[{key}] if {key} in {name} else {absent})", "dict"
        self.write(f"({found} if type({name} := ")
        self.visit(node.node, frame)
        self.write(f") is {kind} else environment.getattr({name}, {key}))")

    def visit_Test(self, node: nodes.Test, frame: Frame) -> None:
        inline = _INLINE_TESTS.get(node.name)
        if inline is None or node.args or node.kwargs or node.dyn_args or node.dyn_kwargs:
            super().visit_Test(node, frame)
            return
        self.write(inline[0])
        self.visit(node.node, frame)
        self.write(inline[1])

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:
        terms: list[nodes.Expr] = []
        left: nodes.Expr = node
        while isinstance(left, nodes.Add):
            terms.append(left.right)
            left = left.left
        terms = [left, *reversed(terms)]
        if any(map(_is_number, terms)):  # numbers do not add up to a text
            super().visit_Add(node, frame)
            return
        self.write("environment.made(" * -(-(len(terms) - 1) // MAX_ADDED))
        for index, term in enumerate(terms):
            self.write(" + " if index else "")
            self.visit(term, frame)
            if index and (index % MAX_ADDED == 0 or index == len(terms) - 1):
                self.write(")")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Mod(self, node: nodes.BinExpr, frame: Frame) -> None:
        if not _is_number(node.right):
            super().visit_Mod(node, frame)
            return
        left = self.temporary_identifier()
        self.write(f"(({left} % ")
        self.visit(node.right, frame)
        self.write(f") if type({left} := ")
        self.visit(node.left, frame)
        self.write(f") is int else environment.call_binop(context, '%', {left}, ")
        self.visit(node.right, frame)
        self.write("))")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        is_slice = isinstance(node.arg, nodes.Slice)
        self.write("environment.sliced(" if is_slice else "")
        super().visit_Getitem(node, frame)
        self.write(")" if is_slice else "")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        is_made = not _is_constant(node)
        self.write("environment.made(" if is_made else "")
        super().visit_List(node, frame)
        self.write(")" if is_made else "")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        is_made = node.ctx == "load" and not _is_constant(node)
        self.write("environment.made(" if is_made else "")
        super().visit_Tuple(node, frame)
        self.write(")" if is_made else "")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        is_made = not all(_is_constant(pair.key) and _is_constant(pair.value) for pair in node.items)
        self.write("environment.made(" if is_made else "")
        super().visit_Dict(node, frame)
        self.write(")" if is_made else "")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        self.write("(")
        self.visit(node.expr, frame)
        left: nodes.Expr = node.expr
        for operand in node.ops:
            # Comparing with a constant is quick, but a search takes time for all of what it searches.
            if _is_constant(operand.expr) or (_is_constant(left) and operand.op not in ("in", "notin")):
                self.visit(operand, frame)
            else:
                name = self.temporary_identifier()
                self.write(f" {operators[operand.op]} ({name} if type({name} := ")
                self.visit(operand.expr, frame)
                self.write(f") is int else environment.compared({name}))")
            left = operand.expr
        self.write(")")

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> None:
        self._printed = self.temporary_identifier()
        self.write(f"({self._printed} if type({self._printed} := ")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> None:
        self.write(f") is str else environment.text({self._printed}))")


def _is_number(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.Const) and isinstance(node.value, int | float)


def _is_constant(node: nodes.Expr) -> bool:
    """True for a constant or a short literal of constants."""
    items = node.items if isinstance(node, nodes.List | nodes.Tuple) else [node]
    return all(isinstance(item, nodes.Const) for item in items)

"""`for i in unroll(n)`: loops that are written out, and options that are decided, before the compiler sees them.

Local arrays become registers only where every index is a constant, and whether the compiler unrolls a loop to make it
one depends on the size of its body. Here it is certain: n is known when the kernel is made, from its closure. So are
the booleans there, and branches on them are taken at once: written out sixteen times, they would be too many for
Numba's analysis.
"""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable
from typing import Any, no_type_check

from ssm_kernels._target import SIMULATED

unroll = range


class _Substitute(ast.NodeTransformer):
    def __init__(self, name: str, value: int) -> None:
        self.name, self.value = name, value

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.copy_location(ast.Constant(self.value), node) if node.id == self.name else node


class _Unroll(ast.NodeTransformer):
    def __init__(self, constants: dict[str, Any]) -> None:
        self.constants = constants

    def visit_For(self, node: ast.For) -> Any:
        call = node.iter
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "unroll"):
            return self.generic_visit(node)
        assert isinstance(node.target, ast.Name)
        assert not node.orelse
        bounds = [eval(compile(ast.Expression(bound), "", "eval"), dict(self.constants)) for bound in call.args]
        written_out = []
        for value in range(*bounds):
            for statement in copy.deepcopy(node.body):
                found = self.visit(_Substitute(node.target.id, value).visit(statement))
                written_out += found if isinstance(found, list) else [found]
        return written_out

    def visit_Name(self, node: ast.Name) -> ast.AST:
        value = self.constants.get(node.id)
        return ast.copy_location(ast.Constant(value), node) if isinstance(value, bool) else node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant):
            return ast.copy_location(ast.Constant(not node.operand.value), node)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        deciding = isinstance(node.op, ast.Or)  # True decides an `or`, False an `and`
        if any(isinstance(value, ast.Constant) and value.value is deciding for value in node.values):
            return ast.copy_location(ast.Constant(deciding), node)
        open_ = [value for value in node.values if not isinstance(value, ast.Constant)]
        if len(open_) < 2:
            return open_[0] if open_ else ast.copy_location(ast.Constant(not deciding), node)
        return ast.copy_location(ast.BoolOp(node.op, open_), node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        test = self.visit(node.test)
        if isinstance(test, ast.Constant):
            return self.visit(node.body if test.value else node.orelse)
        node.test, node.body, node.orelse = test, self.visit(node.body), self.visit(node.orelse)
        return node

    def visit_If(self, node: ast.If) -> Any:
        test = self.visit(node.test)
        if isinstance(test, ast.Constant):
            return self._all(node.body if test.value else node.orelse)
        node.test, node.body, node.orelse = test, self._all(node.body) or [ast.Pass()], self._all(node.orelse)
        return node

    def _all(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        found = [self.visit(statement) for statement in statements]
        return [one for item in found for one in (item if isinstance(item, list) else [item])]


@no_type_check
def unrolled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its `for … in unroll(…)` loops written out; itself in the simulator."""
    if SIMULATED:
        return function
    free = inspect.getclosurevars(function).nonlocals
    lines, first = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    ast.increment_lineno(tree, first - 1)
    (definition,) = tree.body
    definition.decorator_list = []
    definition = _Unroll({**function.__globals__, **free}).visit(definition)
    for node in ast.walk(definition):
        if isinstance(node, ast.FunctionDef | ast.For | ast.While) and not node.body:
            node.body = [ast.Pass()]
    maker = ast.parse(f"def make({', '.join(free)}): return {function.__name__}")
    maker.body[0].body.insert(0, definition)
    scope: dict[str, Any] = {}
    exec(compile(ast.fix_missing_locations(maker), function.__code__.co_filename, "exec"), function.__globals__, scope)
    return scope["make"](**free)

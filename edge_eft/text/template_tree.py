"""A chat template's syntax tree: what may be compiled, the checks put into it, what it expects.

Python's own compiler takes exponential time for deep nesting, and jinja2's copies every name at
every branch, so a tree is bounded before it is compiled. Nothing in it is computed beforehand.
"""

from collections.abc import Iterator
from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser
from jinja2.sandbox import SecurityError
from jinja2.visitor import NodeTransformer

MAX_SOURCE = 1 << 17  # characters of a template; published ones stay below 2**15
MAX_TOKENS = 6_000  # published ones stay below 2,500
MAX_DEPTH = 64  # published ones stay below 30
CHECK = "edge-eft "  # no name that a template can write
_MAX_CODE = 1 << 21  # characters of Python

_REFUSED = {
    nodes.Include: "include another file",
    nodes.Extends: "extend another file",
    nodes.Import: "import another file",
    nodes.FromImport: "import another file",
    nodes.EvalContextModifier: "switch escaping",
}


class Counter(Extension):
    """Refuses a template with too many tokens, as the parser asks for them."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for i, token in enumerate(stream):
            if i >= MAX_TOKENS:
                raise SecurityError(f"have more than {MAX_TOKENS} tokens")
            yield token


class Generation(Extension):
    """`{% generation %}`, with which transformers marks what a model wrote: only its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


def check_tree(tree: nodes.Template) -> None:
    """Refuse a tree that is too deep, or has what a chat template has no use for.

    Raises:
        SecurityError: says what.
    """
    level: list[nodes.Node] = [tree]
    for _ in range(MAX_DEPTH):
        for node in level:
            for kind, said in _REFUSED.items():
                if isinstance(node, kind):
                    raise SecurityError(said)
            if isinstance(node, nodes.Block) and node.scoped:
                raise SecurityError("have a scoped block")
            if isinstance(node, nodes.If) and len(node.elif_) > MAX_DEPTH:
                raise SecurityError(f"have more than {MAX_DEPTH} branches in one place")
        level = [child for node in level for child in node.iter_child_nodes()]
        if not level:
            return
    raise SecurityError(f"nest more than {MAX_DEPTH} levels deep")


def check_code(code: str) -> str:
    """Return the Python text of a template, unless it is too long to be compiled."""
    if len(code) > _MAX_CODE:
        raise SecurityError(f"become {len(code)} characters of Python")
    return code


class Instrument(NodeTransformer):
    """Puts filters into a tree: CHECK and "tick", "macro", "data_out" and the like.

    Every turn of a loop and every call of a macro ticks, constant text is counted where it is put
    out, and what passes neither a filter nor a method of the environment otherwise (literals,
    slices, `~` and comparisons) passes one of these.
    """

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        return self._ticking(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        return self._ticking(node)

    def visit_Block(self, node: nodes.Block) -> nodes.Node:  # noqa: N802
        return self._ticking(node)

    def visit_Macro(self, node: nodes.Macro) -> list[nodes.Node]:  # noqa: N802
        return [nodes.ExprStmt(_call("macro")), self._ticking(node)]

    def visit_Output(self, node: nodes.Output) -> list[nodes.Node]:  # noqa: N802
        n = sum(len(part.data) for part in node.nodes if isinstance(part, nodes.TemplateData))
        self.generic_visit(node)
        count = [nodes.ExprStmt(_call("data_out", nodes.Const(n)))] if n else []
        return [*count, node]

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call("joined", nodes.List(node.nodes))

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return self._made(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        return self._made(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        return self._made(node) if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        if isinstance(node.arg, nodes.Slice):
            return self._made(node)
        return self.generic_visit(node)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _weighed(node.expr)
        for operand in node.ops:
            operand.expr = _weighed(operand.expr)
        return node

    def _made(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        return _call("made", node)

    def _ticking(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("tick")))
        return node


def _call(name: str, value: nodes.Expr | None = None) -> nodes.Expr:
    """A call of one of the checks: a filter costs less than any other call."""
    return nodes.Filter(value or nodes.Const(None), CHECK + name, [], [], None, None)


def _weighed(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _call("weighed", node)


# --- what it expects ------------------------------------------------------------------------


def iterates_contents(tree: nodes.Template) -> bool:
    """Return whether a template goes through the parts of a message's content.

    As vLLM finds it out (`_detect_content_format`): a loop, or a filter, over `message.content` or
    over a variable that was set to it. A macro's parameter may have been given it, too.
    """
    names = {"content"}
    for node in tree.find_all(nodes.Assign):
        if isinstance(node.target, nodes.Name) and _is_content(node.node, names):
            names.add(node.target.name)
    for macro in tree.find_all(nodes.Macro):
        names |= {argument.name for argument in macro.args}
    loops = (loop.iter for loop in tree.find_all(nodes.For))
    return any(_is_content(over, names) for over in loops)


def _is_content(node: nodes.Node, names: set[str]) -> bool:
    while isinstance(node, nodes.Filter | nodes.Getitem | nodes.CondExpr):
        if isinstance(node, nodes.Getitem) and _key(node) == "content":
            return True
        if isinstance(node, nodes.CondExpr):
            node = node.expr1
        elif node.node is None:
            return False
        else:
            node = node.node
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    return isinstance(node, nodes.Name) and node.name in names


def _key(node: nodes.Getitem) -> Any:
    return node.arg.value if isinstance(node.arg, nodes.Const) else None

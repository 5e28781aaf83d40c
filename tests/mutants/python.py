"""Every way to break a Python file: mutmut's operators, and two that it does not have.

Functions are broken, not what is made when a module is imported: a test that replaces a function
sees the change, and a constant that is one more shows nothing. Left alone are annotations,
defaults, decorators and whatever is only written for people: log lines, metrics and sentences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, cast

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_string

from tests.mutants.mutant import Mutant, difference

TOLD: Final = frozenset({"logger", "telemetry", "warnings"})
"""What is called on these is told to people."""
INERT: Final = frozenset({"len", "isinstance", "cast", "super", "TypeVar"})
"""A broken call of these fails in every test, or is no call at run time."""
UNREAD: Final = frozenset({"__str__", "__repr__"})
_COMPOUND = (cst.If, cst.For, cst.While, cst.With, cst.Try, cst.FunctionDef, cst.ClassDef)


def mutants_of(path: str, text: str) -> list[Mutant]:
    """Return every mutant of a file, in the order of its lines."""
    wrapper = MetadataWrapper(cst.parse_module(text))
    module = wrapper.module
    found = _Breaker(module)
    wrapper.visit(found)
    # libcst writes only the function or class again that a change is in: of a file it is slow.
    pieces = [module.code_for_node(each) for each in module.body]
    before = text[: text.index("".join(pieces))]
    seen: Counter[tuple[str, str, str, str]] = Counter()
    texts: set[str] = set()
    mutants = []
    for where, lines, part, original, broken in found.changes:
        changed = cast("cst.CSTNode", module.body[part].deep_replace(original, broken))
        piece = module.code_for_node(changed)
        after = before + "".join([*pieces[:part], piece, *pieces[part + 1 :]])
        if after in texts or not _compiles(after):
            continue
        texts.add(after)
        one = Mutant(path, where, *difference(text, after), lines=lines, text=after)
        mutants.append(Mutant(*one.name, lines=lines, text=after, nth=seen[one.name]))
        seen[one.name] += 1
    return mutants


def _compiles(text: str) -> bool:
    try:
        compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True


class _Breaker(cst.CSTVisitor):  # type: ignore[misc]  # nothing is known of its types
    """Walks a module.

    `changes` is where, the lines, which part of the module, a node of it, and what stands for it.
    """

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, module: cst.Module) -> None:
        super().__init__()
        self.changes: list[tuple[str, tuple[int, int], int, cst.CSTNode, cst.CSTNode]] = []
        self._parts: dict[cst.CSTNode, int] = {each: at for at, each in enumerate(module.body)}
        self._part = 0
        self._names: list[str] = []
        self._functions = 0
        self._lines: list[tuple[int, int]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _is_left_alone(node):
            return False
        self._part = self._parts.get(node, self._part)
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._names.append(node.name.value)
            self._functions += isinstance(node, cst.FunctionDef)
        if isinstance(node, (*_COMPOUND, cst.SimpleStatementLine)):
            self._lines.append(self._lines_of(node))
        if self._functions:
            for broken in _broken(node):
                where = ".".join(self._names)
                self.changes.append((where, self._lines[-1], self._part, node, broken))
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        # Also called for what was left alone: its name was never noted.
        if _is_left_alone(original_node):
            return
        if isinstance(original_node, (*_COMPOUND, cst.SimpleStatementLine)):
            self._lines.pop()
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self._names.pop()
            self._functions -= isinstance(original_node, cst.FunctionDef)

    def _lines_of(self, node: cst.CSTNode) -> tuple[int, int]:
        """Return first and last line of a statement, of a compound one those before its body."""
        position = self.get_metadata(PositionProvider, node)
        if not isinstance(node, _COMPOUND):
            return position.start.line, position.end.line
        body = self.get_metadata(PositionProvider, node.body)
        return position.start.line, max(position.start.line, body.start.line - 1)


def _broken(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    yield from _ours(node)
    for kind, operator in mutation_operators:
        if isinstance(node, kind):
            changed: Iterable[cst.CSTNode] = operator(node)
            if operator is operator_string:
                changed = list(changed)[:1]  # another case is no other mistake
            for broken in changed:
                if not (isinstance(node, cst.Call) and _takes_a_sentence(node, broken)):
                    yield broken


def _ours(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """Yield what mutmut has no operator for: the other branch, and a call that is not made."""
    if isinstance(node, cst.If | cst.CompIf):
        condition = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        no = cst.Not(whitespace_after=cst.SimpleWhitespace(" "))
        yield node.with_changes(test=cst.UnaryOperation(no, condition))
    if m.matches(
        node, m.SimpleStatementLine(body=[m.Expr(m.Call() | m.Await()) | m.Raise() | m.Del()])
    ):
        yield node.with_changes(body=[cst.Pass()])


def _is_left_alone(node: cst.CSTNode) -> bool:
    match node:
        case cst.Annotation() | cst.Decorator() | cst.Parameters():
            return True
        case cst.FunctionDef():
            return node.name.value in UNREAD
        case cst.Call():
            return _root(node.func) in TOLD | INERT
        case cst.SimpleStatementLine(body=[cst.Expr(value=cst.BaseString())]):
            return True
        case cst.SimpleStatementLine(body=[cst.Expr(value=cst.Call(func=called))]):
            return _root(called) in TOLD
    return _is_sentence(node)


def _root(node: cst.BaseExpression) -> str:
    while isinstance(node, cst.Attribute | cst.Call):
        node = node.value if isinstance(node, cst.Attribute) else node.func
    return node.value if isinstance(node, cst.Name) else ""


def _takes_a_sentence(call: cst.Call, broken: cst.CSTNode) -> bool:
    """Tell whether a broken call only lacks what it says to people."""
    if not isinstance(broken, cst.Call):
        return False
    kept = {id(argument) for argument in broken.args}
    gone = [argument.value for argument in call.args if id(argument) not in kept]
    return any(_is_sentence(value) for value in gone)


def _is_sentence(node: cst.CSTNode) -> bool:
    """Tell prose from data: it has words."""
    if isinstance(node, cst.ConcatenatedString):
        return _is_sentence(node.left)
    if isinstance(node, cst.SimpleString):
        said = node.raw_value
        return said.count(" ") > 1 or (" " in said and said[0].isupper())
    if isinstance(node, cst.FormattedString):
        return any(
            isinstance(part, cst.FormattedStringText) and " " in part.value.strip()
            for part in node.parts
        )
    return False

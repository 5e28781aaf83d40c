"""Put a mutant into a process that has imported the healthy code.

Of Python the code objects of functions are exchanged in place, so whoever has imported, decorated
or registered a function calls the broken one. Of SQL every constant that holds the statement is.
"""

from __future__ import annotations

import gc
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

Functions = Mapping[tuple[str, str, int], list[FunctionType]]


def functions_under(root: Path) -> Functions:
    """Find every function of our own code: by file, qualified name and first line."""
    found: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
    prefix = f"{root}/"
    for each in gc.get_objects():
        if type(each) is FunctionType and each.__code__.co_filename.startswith(prefix):
            found[_place(each.__code__)].append(each)
    return found


def graft_python(functions: Functions, file: Path, broken: str) -> int:
    """Exchange what differs between a file and its broken text; return how many functions.

    Raises:
        LookupError: What differs is in no function, or in one that is not alive.
    """
    healthy = compile(file.read_text(encoding="utf-8"), str(file), "exec")
    count = 0
    for old, new in _differing(healthy, compile(broken, str(file), "exec")):
        living = functions.get(_place(old), [])
        if not living:
            raise LookupError(f"{old.co_qualname} is not alive")
        for function in living:
            function.__code__ = _with_cells(new, function.__code__.co_freevars)
            count += 1
    return count


def graft_text(healthy: str, broken: str, packages: frozenset[str]) -> int:
    """Exchange a text in every constant of our modules; return how many hold it."""
    count = 0
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in packages:
            for constant, value in list(vars(module).items()):
                changed = _exchanged(value, healthy, broken)
                if changed is not value:
                    setattr(module, constant, changed)
                    count += 1
    return count


def _place(code: CodeType) -> tuple[str, str, int]:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _differing(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """Yield the outermost functions that differ. Modules and classes are looked into."""
    inner = zip(_codes(old), _codes(new), strict=True)
    for before, after in inner:
        if _is_body_of_class(before):
            yield from _differing(before, after)
        elif not _is_same(before, after):
            yield before, after


def _codes(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]


def _is_body_of_class(code: CodeType) -> bool:
    return "__qualname__" in code.co_names and "__module__" in code.co_names


def _is_same(before: CodeType, after: CodeType) -> bool:
    """Compare without lines: behind a change that drops one they all differ."""
    parts = ("co_code", "co_names", "co_varnames", "co_freevars", "co_exceptiontable")
    if any(getattr(before, part) != getattr(after, part) for part in parts):
        return False
    if len(before.co_consts) != len(after.co_consts):
        return False
    return all(
        _is_same(one, other)
        if isinstance(one, CodeType) and isinstance(other, CodeType)
        else (type(one), one) == (type(other), other)
        for one, other in zip(before.co_consts, after.co_consts, strict=True)
    )


def _with_cells(code: CodeType, wanted: tuple[str, ...]) -> CodeType:
    """Let a change that drops the only mention of an outer name keep the function's cells."""
    return code if code.co_freevars == wanted else code.replace(co_freevars=wanted)


def _exchanged(value: Any, healthy: str, broken: str) -> Any:
    if value == healthy and isinstance(value, str):
        return broken
    if isinstance(value, tuple) and type(value) is tuple:
        parts = tuple(_exchanged(part, healthy, broken) for part in value)
        return parts if any(a is not b for a, b in zip(parts, value, strict=True)) else value
    return value

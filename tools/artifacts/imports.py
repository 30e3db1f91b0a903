"""What a module imports, read from its source without running it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Final

#: An ``except`` clause with one of these makes the imports in its ``try`` optional.
_FORGIVING: Final = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


#: Conditions that are false on Lambda.
_NEVER: Final = frozenset({"TYPE_CHECKING", "typing.TYPE_CHECKING", "sys.platform == 'win32'"})


@dataclass(frozen=True, slots=True)
class Import:
    """One import.

    Attributes:
        module: Absolute name of the module.
        names: What is taken from it, which may be modules too; empty for ``import module``.
        optional: Importing the module may do without it: it stands under an ``if``, in a ``try`` that catches
            ImportError, or in a function.
    """

    module: str
    names: tuple[str, ...] = ()
    optional: bool = False


def imports_of(source: str, module: str, *, is_package: bool) -> list[Import]:
    """Every import of a module, at any depth, but those under a condition that is false on Lambda.

    Args:
        source: Its text.
        module: Its absolute name, for relative imports.
        is_package: Whether it is a package's ``__init__``.

    Raises:
        SyntaxError: If this interpreter cannot read it.

    Example:
        >>> imports_of("from . import b", "a.c", is_package=False)
        [Import(module='a', names=('b',), optional=False)]
    """
    finder = _Finder(module if is_package else module.rpartition(".")[0])
    finder.visit(ast.parse(source))
    return finder.found


def imports_at_run_time(source: str) -> bool:
    """Whether the source calls ``import_module`` or ``__import__``."""
    if "import_module" not in source and "__import__" not in source:
        return False
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return any(ast.unparse(call.func).rpartition(".")[2] in ("import_module", "__import__") for call in calls)


def only_gathers(source: str) -> bool:
    """Whether a module defines nothing: it imports, gives names to values, and calls what it has imported."""
    gathering = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr)
    return all(isinstance(statement, gathering) for statement in ast.parse(source).body)


class _Finder(ast.NodeVisitor):
    def __init__(self, package: str) -> None:
        self._package = package
        self._optional = 0
        self.found: list[Import] = []

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [Import(alias.name, (), self._optional > 0) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parts = self._package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
        names = tuple(alias.name for alias in node.names)
        self.found.append(Import(base, names, self._optional > 0))

    def visit_If(self, node: ast.If) -> None:
        self._optional += 1
        for statement in (*(() if _is_never(node.test) else node.body), *node.orelse):
            self.visit(statement)
        self._optional -= 1

    def visit_Try(self, node: ast.Try) -> None:
        forgiving = any(_forgives(handler) for handler in node.handlers)
        self._optional += forgiving
        for statement in node.body:
            self.visit(statement)
        self._optional -= forgiving
        for part in (*node.handlers, *node.orelse, *node.finalbody):
            self.visit(part)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._optional += 1
        self.generic_visit(node)
        self._optional -= 1

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._optional += 1
        self.generic_visit(node)
        self._optional -= 1


def _is_never(test: ast.expr) -> bool:
    """Whether a condition is false on Lambda: ``TYPE_CHECKING``, or another system than Linux."""
    return ast.unparse(test) in _NEVER


def _forgives(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    names = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(name, ast.Name) and name.id in _FORGIVING for name in names)

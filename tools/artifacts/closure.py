"""Which modules a function needs: everything that can be reached from its handler by imports."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.artifacts.errors import BuildError
from tools.artifacts.imports import imports_at_run_time, imports_of, only_gathers
from tools.artifacts.known import AT_RUN_TIME, BARE, NEVER_CALLED


@dataclass
class Closure:
    """The modules that can be reached from some module.

    Args:
        ours: Folder of our own packages. Whatever these import must be found.
        packages: Folder of the third-party packages. Whatever these import is added if it is there.
        bare: Packages whose ``__init__`` is to be empty.
        brought: Packages that Lambda's runtime brings, and that are relied on; by today's functions none.

    Attributes:
        files: Absolute module name -> its file.
    """

    ours: Path
    packages: Path
    bare: Collection[str] = BARE
    brought: Collection[str] = ()
    files: dict[str, Path] = field(default_factory=dict)

    def add(self, module: str) -> None:
        """Add a module and all that it needs, or may come to need.

        Raises:
            BuildError: If something is missing that importing the module would miss, or that one of our own
                modules names anywhere; says who wants it.
        """
        self._follow(module, optional=False)
        self._follow(module, optional=True)

    def _follow(self, module: str, *, optional: bool) -> None:
        """Follow the imports that always happen, or all of them."""
        seen: set[str] = set()
        waiting = [module]
        while waiting:
            for part in _with_parents(waiting.pop()):
                if part in seen:
                    continue
                seen.add(part)
                file = self._find(part)
                if file is None:
                    raise BuildError(f"there is no module {part}")
                self.files[part] = file
                if part in self.bare:
                    _refuse_more_than_names(part, file)
                else:
                    waiting += self._needs(part, file, optional)

    def relative_paths(self) -> Mapping[str, Path | None]:
        """Path in the artifact -> file, or None for an empty one."""
        paths: dict[str, Path | None] = {}
        for name, file in self.files.items():
            parts = name.split(".")
            inside = [*parts, file.name] if file.name == "__init__.py" else [*parts[:-1], file.name]
            paths["/".join(inside)] = None if name in self.bare else file
        return paths

    def _find(self, module: str) -> Path | None:
        for root in (self.ours, self.packages):
            path = root.joinpath(*module.split("."))
            for file in (path / "__init__.py", path.with_name(path.name + ".py")):
                if file.is_file():
                    return file
        return None

    def _needs(self, module: str, file: Path, optional: bool) -> Iterator[str]:
        source = file.read_text(encoding="utf-8")
        ours = not file.is_relative_to(self.packages)
        if imports_at_run_time(source):
            if module not in AT_RUN_TIME:
                raise BuildError(
                    f"{module} imports by name at run time; say what in tools/artifacts/known.py"
                )
            yield from AT_RUN_TIME[module]
        for wanted in imports_of(source, module, is_package=file.name == "__init__.py"):
            if wanted.optional and (not optional or (module, wanted.module) in NEVER_CALLED):
                continue
            top = wanted.module.partition(".")[0]
            if top in sys.stdlib_module_names or top in self.brought:
                continue
            if self._find(wanted.module) is not None:
                yield wanted.module
                names = (f"{wanted.module}.{name}" for name in wanted.names)
                yield from (name for name in names if self._find(name) is not None)
            elif ours or not optional:
                raise BuildError(
                    f"{module} imports {wanted.module}, neither ours nor in functions/requirements.txt;"
                    " add it to functions/requirements.in and run: make lock"
                )


def _refuse_more_than_names(package: str, file: Path) -> None:
    if not only_gathers(file.read_text(encoding="utf-8")):
        raise BuildError(f"{package} does more than gather names by now; see tools/artifacts/known.py")


def _with_parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]

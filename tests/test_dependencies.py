"""What a deployment installs is what the server imports, and says so in `pyproject.toml`."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

from django.conf import settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(settings.BASE_DIR)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OURS = {"airi_server", "accounts", "billing", "llmrouter", "chats"}
NAMED = {
    "channels-redis": "CHANNEL_LAYERS names its backend",
    "uvloop": "uvicorn is told to use it by name",
    "whitenoise": "MIDDLEWARE names it",
}
"""Declared and imported by nothing of ours."""


def production_files() -> list[Path]:
    found = [ROOT / "manage.py"]
    for package in OURS:
        found += (ROOT / package).rglob("*.py")
    return [path for path in found if ROOT / "airi_server/launch" not in path.parents]


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports, as far as it can be told from a name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {
        name for name in names if name.partition(".")[0] not in {*OURS, *sys.stdlib_module_names}
    }


@cache
def owners() -> dict[str, str]:
    """Return the distribution that brings each module, except for namespaces several share."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        for file in distribution.files or ():
            if file.suffix in {".py", ".so"} and ".dist-info" not in str(file):
                parts = [*file.parts[:-1], file.name.partition(".")[0]]
                module = ".".join(parts).removesuffix(".__init__")
                found[module] = canonicalize_name(distribution.name)
    return found


def owner(module: str) -> str | None:
    while module and module not in owners():
        module = module.rpartition(".")[0]
    return owners().get(module)


def declared(lines: list[str]) -> set[str]:
    """Return the distributions that requirements name, with those of the extras they ask for."""
    names: set[str] = set()
    for requirement in map(Requirement, lines):
        names.add(canonicalize_name(requirement.name))
        for line in metadata.requires(requirement.name) or ():
            part = Requirement(line)
            if part.marker and not part.marker.evaluate({"extra": ""}):
                extras = ({"extra": extra} for extra in requirement.extras)
                if any(part.marker.evaluate(extra) for extra in extras):
                    names.add(canonicalize_name(part.name))
    return names


def listed(name: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / name).read_text(), re.MULTILINE))


PRODUCTION = declared(PROJECT["project"]["dependencies"])


def test_what_the_server_imports_is_declared():
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in production_files()
        for name in imported(path)
        if owner(name) not in PRODUCTION
    }

    assert missing == set()


def test_what_is_declared_is_imported_or_named():
    used = {owner(name) for path in production_files() for name in imported(path)}
    direct = {
        canonicalize_name(Requirement(line).name) for line in PROJECT["project"]["dependencies"]
    }

    assert direct - used == set(NAMED)


def test_what_only_run_and_tests_need_is_not_in_a_deployment():
    groups = PROJECT["dependency-groups"]
    local = {
        canonicalize_name(Requirement(line).name)
        for group in groups.values()
        for line in group
        if isinstance(line, str)
    }

    assert listed("requirements.txt") & local == set()
    assert listed("requirements.txt") >= PRODUCTION
    assert listed("requirements.txt") < listed("requirements-launch.txt")
    assert listed("requirements-launch.txt") < listed("requirements-dev.txt")
    assert listed("requirements-dev.txt") < listed("requirements-e2e.txt")

"""Rules about the project as a whole: each one is cheaper to test than to remember."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command, get_commands
from django.urls import get_resolver

from airi_server import checks, env
from airi_server.api import api
from airi_server.runtime.options import REGISTRY

ROOT = Path(settings.BASE_DIR)
PACKAGES = ["airi_server", "accounts", "billing", "llmrouter", "chats", "tests"]
MAX_LINES = 500
MAX_MODULES = 20
OPENAPI = ROOT / "docs" / "openapi.json"
SETTINGS_PAGE = ROOT / "docs" / "settings.md"


def tracked(*patterns: str) -> list[Path]:
    out = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / line for line in out.splitlines() if (ROOT / line).is_file()]


def test_operator_commands_have_hyphenated_names():
    ours = {
        "reconcile-usage",
        "seed-router-config",
        "explain-route",
        "rotate-master-key",
        "export-router-config",
        "grant-serving-role",
    }

    assert ours <= set(get_commands())


@pytest.mark.django_db
def test_every_model_change_has_a_migration():
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


@pytest.mark.django_db
def test_the_database_runs_the_statements_of_this_code():
    assert checks.statements_installed(None, databases=["default"]) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_outgrows_a_reader(package):
    sizes = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in (ROOT / package).rglob("*.py")
        if "migrations" not in path.parts
    }

    assert {path: lines for path, lines in sizes.items() if lines > MAX_LINES} == {}


@pytest.mark.parametrize("package", [each for each in PACKAGES if each != "tests"])
def test_no_app_has_more_rooms_on_its_top_floor_than_a_reader_looks_through(package):
    assert len(list((ROOT / package).glob("*.py"))) <= MAX_MODULES


def test_a_class_name_means_one_thing():
    """But for a command's, which is Django's, and private ones."""
    seen: dict[str, set[str]] = {}
    for path in (ROOT / package for package in PACKAGES if package != "tests"):
        for module in path.rglob("*.py"):
            for name in re.findall(r"^class ([A-Z]\w*)", module.read_text(), re.MULTILINE):
                if name not in ("Command", "Migration"):
                    seen.setdefault(name, set()).add(str(module.relative_to(ROOT)))

    assert {name: places for name, places in seen.items() if len(places) > 1} == {}


def test_openapi_document_is_the_one_the_code_makes():
    made = json.dumps(api.get_openapi_schema(), indent=2, sort_keys=True, default=str) + "\n"

    assert OPENAPI.read_text() == made, "run: ./run manage export-openapi"


def test_openapi_document_is_served_as_it_is_and_made_once(client, monkeypatch):
    first = client.get("/api/openapi.json")
    monkeypatch.setattr(api, "get_openapi_schema", None)

    again = client.get("/api/openapi.json")

    assert json.loads(first.content) == json.loads(OPENAPI.read_text())
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["Content-Type"] == "application/json"


def test_every_environment_variable_is_documented():
    documented = set(
        re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \|", SETTINGS_PAGE.read_text(), re.MULTILINE)
    )
    read = set(env.READ) - {"PYTEST_XDIST_WORKER"}

    assert read - documented == set()


def test_every_operator_setting_is_documented():
    page = SETTINGS_PAGE.read_text()

    assert [name for name in REGISTRY if f"| `{name}` |" not in page] == []


def test_every_error_code_is_documented():
    page = (ROOT / "docs" / "errors.md").read_text()
    codes = {
        match
        for package in PACKAGES[:-1]
        for path in (ROOT / package).rglob("*.py")
        for match in re.findall(r'^    code = "(\w+)"', path.read_text(), re.MULTILINE)
    }

    assert {code for code in codes if f"`{code}`" not in page} == set()


def test_every_route_is_in_one_of_the_known_rooms():
    roots = {str(pattern.pattern) for pattern in get_resolver().url_patterns}

    assert roots == {
        "", "favicon.ico", "livez", "readyz", "docs", "docs/", "docs/<str:name>",
        "app", "app/", "app/chat", "admin", "admin/",
    }  # fmt: skip


def test_nothing_names_a_package_registry_or_a_path_of_a_machine():
    registry = re.compile(r"(pypi|pythonhosted|npmjs)\.(org|com)|--(extra-)?index-url")
    machine = re.compile(r"(^|[^A-Za-z0-9._~/-])/(work|root|home)/[A-Za-z]")
    found = []
    for path in tracked():
        if path.suffix in {".png", ".jpg", ".ico"} or path == Path(__file__):
            continue
        text = path.read_text(errors="ignore")
        found += [str(path.relative_to(ROOT)) for rule in (registry, machine) if rule.search(text)]

    assert found == []


def test_sql_and_lua_files_carry_their_contract():
    bare = [
        str(path.relative_to(ROOT))
        for path in tracked("*.sql", "*.lua")
        if not re.match(r"-- [\w-]+\.(sql|lua): ", path.read_text())
        or not re.search(r"^-- (Out|Returns)", path.read_text(), re.MULTILINE)
    ]

    assert bare == []

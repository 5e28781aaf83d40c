"""The pages of docs/: what can be held to the code without running it, and links that lead."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission

from airi_server import env

ROOT = Path(settings.BASE_DIR)
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
TABLES = ("settings.md", "errors.md", "roles.md", "router.md", "console.md")
WITH_TWO_MEANINGS = {"errors.md": ["`INVALID_REQUEST`"]}
MAX_LINES = 500


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(text: str) -> set[str]:
    """Return the anchors that a page's headings have where it is shown."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {each.strip().replace(" ", "-") for each in words}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_what_is_there(page):
    text = page.read_text()
    broken = []
    for way in re.findall(r"\]\(([^)\s]+)\)", text):
        if way.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = way.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in anchors(target.read_text())
        ):
            broken.append(way)

    assert broken == []


@pytest.mark.parametrize("name", TABLES)
def test_tables_say_nothing_twice(name):
    """Two branches that each changed a row leave both behind."""
    sections = re.split(r"^#+ .+$", (DOCS / name).read_text(), flags=re.MULTILINE)
    twice = [
        row
        for section in sections
        for row, count in Counter(re.findall(r"^\| (`[^|]+?`) \|", section, re.MULTILINE)).items()
        if count > 1
    ]

    assert twice == WITH_TWO_MEANINGS.get(name, [])


def test_every_page_is_on_the_index():
    index = (DOCS / "index.md").read_text()
    pages = [page.relative_to(DOCS) for page in DOCS.rglob("*.md")]
    missing = [str(page) for page in pages if f"({page})" not in index and page.name != "index.md"]

    assert missing == []


def test_the_hot_path_counts_its_files():
    page = (DOCS / "hotpath.md").read_text()
    files = set()
    for row in re.findall(r"^\| \[.+$", page, re.MULTILINE):
        base = ROOT
        for name in re.findall(r"`([\w/]+\.(?:py|sql))`", row.rpartition(" | ")[2]):
            found = [
                place / name
                for place in (ROOT, base, *base.parents)
                if (place / name).is_file() and place.is_relative_to(ROOT)
            ]
            assert found, (name, row)
            files.add(found[0])
            base = found[0].parent
    lengths = {named(path): len(path.read_text().splitlines()) for path in files}

    (told,) = re.findall(r"(\d+) of them, none above (\d+) lines", page)
    assert (len(files), MAX_LINES) == tuple(map(int, told))
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}


def test_the_catalog_of_commands_is_that_of_the_launcher():
    """What CONTRIBUTING and README say of `./run` is what `./run --help` says."""
    told = subprocess.run(
        [ROOT / "run", "--help"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    page = (ROOT / "CONTRIBUTING.md").read_text() + (ROOT / "README.md").read_text()
    said = set(re.findall(r"^\$ (?:\w+=\S+ )?\./run ([a-z]+)", page, re.MULTILINE))

    assert said
    assert {command for command in said if f"./run {command}" not in told} == set()


def table(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the tables under a heading."""
    section = (DOCS / page).read_text().partition(f"\n{heading}\n")[2]
    section = re.split(r"^## ", section, maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| (.+) \|$", section, re.MULTILINE)
    return [re.split(r" (?<!\\)\| ", row) for row in rows if not row.startswith("---")]


def test_defaults_and_ranges_of_variables_are_those_of_the_code():
    words = {"required": None, "empty": "", "random": "", "`127.0.0.1`, `localhost`, `[::1]`": ""}
    told, read = {}, {}
    for name, kind, default, *_ in table("settings.md", "## Environment variables"):
        variable = env.READ.get(name.strip("`"))
        if variable is None or name in told:  # below is what production refuses
            continue
        plain = default.strip("`").replace(",", "") if default not in words else words[default]
        bounds = re.search(r"(\d+)(?:\.\.(\d+)| or more)", kind)
        told[name] = (plain, bounds.groups() if bounds and "number" in kind else None)
        ours = re.search(r"(\d+)\.\.(\d+)$", variable.kind)
        most = ours and (None if ours[2] == str(2**31 - 1) else ours[2])
        read[name] = (variable.default, (ours[1], most) if ours else None)

    assert len(told) > 25
    assert told == read


def test_log_lines_are_those_of_the_code():
    rows = table("telemetry.md", "## Logs")[1:]
    wrong = []
    for logger, message, level, *_ in rows:
        name, text = logger.strip("`"), message.strip("`")
        if name.startswith(("uvicorn", "django.")):
            continue
        path = ROOT / f"{name.replace('.', '/')}.py"
        code = path.read_text() if path.is_file() else ""
        written = re.findall(rf'logger\.(\w+)\(\s*"{re.escape(text)}"', code)
        levels = {"error" if how == "exception" else how for how in written} - {"log"}
        if f'"{text}"' not in code or (levels and levels != {level}):
            wrong.append((name, text, levels))

    assert len(rows) > 25
    assert wrong == []


def test_metrics_are_those_of_the_code():
    code = "".join(
        path.read_text()
        for package in ("llmrouter", "chats")
        for path in ROOT.glob(f"{package}/**/*.py")
    )
    told = {
        name for first, *_ in table("telemetry.md", "## Metrics")[1:]
        for name in re.findall(r"`([\w.]+)`", first)
    }  # fmt: skip
    made = set(re.findall(r'_?(?:counter|histogram|gauge)\w*\(\s*"([\w.]+)"', code))

    assert {name for name in told if f'"{name}"' not in code} == set()
    assert made - told == set()


def test_error_codes_are_those_of_the_code():
    code = "".join(
        path.read_text()
        for package in ("airi_server", "accounts", "billing", "llmrouter", "chats")
        for path in ROOT.glob(f"{package}/**/*.py")
    )
    told = set(re.findall(r"^\| `(\w+)` \| [\d4]", (DOCS / "errors.md").read_text(), re.MULTILINE))

    assert len(told) > 20
    assert {each for each in told if f'"{each}"' not in code} == set()


@pytest.mark.django_db
def test_permissions_of_the_console_are_those_of_the_models():
    told = set()
    for cell, *_ in table("console.md", "## Who may what")[1:]:
        app = ""
        for name in re.findall(r"`([\w.…]+)`", cell):
            app = name.partition(".")[0] if "." in name else app
            if not name.endswith("…"):
                told.add(f"{app}.{name.rpartition('.')[2]}")
    there = {
        f"{app}.{codename}"
        for app, codename in Permission.objects.values_list("content_type__app_label", "codename")
    }

    assert len(told) > 25
    assert told - there == set()

"""The tool that breaks the code: it breaks what it says, and nothing stays broken or forgotten."""

from __future__ import annotations

import functools
import importlib.util
import sys

import pytest

from airi_server.launch import processes
from tests.mutants import accepted, graft, scope, sql, typecheck
from tests.mutants.mutant import Mutant, difference

HEALTHY = """
import functools

def paid(flux):
    return flux + 1

@functools.cache
def remembered(flux):
    return paid(flux) * 2

class Account:
    @property
    def free(self):
        return super().__hash__() and 5
"""


@pytest.fixture
def living(tmp_path, monkeypatch):
    """A module that was imported while it was healthy."""
    file = tmp_path / "living_code.py"
    file.write_text(HEALTHY)
    spec = importlib.util.spec_from_file_location("living_code", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "living_code", module)
    spec.loader.exec_module(module)
    return module, file


class TestGraft:
    def test_reaches_whoever_has_imported_or_decorated_the_function(self, living):
        module, file = living
        bound = functools.partial(module.paid, 4)

        functions = graft.functions_under(file.parent)
        count = graft.graft_python(functions, file, HEALTHY.replace("flux + 1", "flux - 1"))

        assert count == 1
        assert (bound(), module.remembered(4)) == (3, 6)

    def test_takes_a_method_that_loses_its_cell(self, living):
        module, file = living

        functions = graft.functions_under(file.parent)
        broken = HEALTHY.replace("super().__hash__() and 5", "7")
        graft.graft_python(functions, file, broken)

        assert module.Account().free == 7

    def test_of_what_is_not_alive_is_an_error(self, living):
        _, file = living

        with pytest.raises(LookupError):
            graft.graft_python({}, file, HEALTHY.replace("flux + 1", "flux - 1"))

    def test_exchanges_a_text_also_within_a_table(self, living):
        module, _ = living
        module.ALONE, module.TABLE = "SELECT 1", (("I1", "SELECT 1"), ("I2", "SELECT 2"))

        assert graft.graft_text("SELECT 1", "SELECT 0", frozenset({"living_code"})) == 2

        assert module.ALONE == "SELECT 0"
        assert module.TABLE == (("I1", "SELECT 0"), ("I2", "SELECT 2"))


class TestStatements:
    @pytest.mark.parametrize("path", scope.SQL)
    def test_are_broken_outside_of_their_comments(self, path):
        text = (processes.ROOT / path).read_text()
        comments = [line for line in text.splitlines() if line.startswith("--")]

        found = sql.mutants_of(path, text)

        assert found
        assert len({one.id for one in found}) == len(found)
        for one in found:
            assert one.text != text
            assert all(line in one.text for line in comments)

    def test_are_broken_in_the_ways_that_matter(self):
        found = sql.mutants_of("a.sql", "SELECT a\nFROM t\nWHERE a <= 5\n  AND b - c > 0\n")

        assert {(one.was, one.becomes) for one in found} >= {
            ("WHERE a <= 5", "WHERE a < 5"),
            ("WHERE a <= 5", "WHERE true OR a <= 5"),
            ("AND b - c > 0", "AND b + c > 0"),
            ("AND b - c > 0", "AND b - c >= 0"),
            ("AND b - c > 0", ""),
        }


@pytest.mark.parametrize(("value", "is_refused"), [("None", True), ("not new", False)])
def test_the_type_checker_refuses_what_is_of_another_type(tmp_path, value, is_refused):
    healthy = "def is_old(new: bool) -> bool:\n    return new\n"
    (tmp_path / "age.py").write_text(healthy)
    broken = healthy.replace("return new", f"return {value}")
    mutant = Mutant("age.py", "is_old", "return new", f"return {value}", (2, 2), broken)

    assert typecheck.refuses(mutant, tmp_path) is is_refused
    assert (tmp_path / "age.py").read_text() == healthy


class TestNames:
    def test_are_the_lines_that_differ(self):
        assert difference("a\nb\nc\n", "a\nB  2\nc\n") == ("b", "B 2")
        assert difference("a\nb\nc\n", "a\nc\n") == ("b", "")

    def test_do_not_depend_on_where_the_line_is(self):
        here = Mutant("p.py", "f", "a", "b", (1, 1), "x")
        there = Mutant("p.py", "f", "a", "b", (9, 9), "y")

        assert here.id == there.id
        assert here.id != Mutant("p.py", "f", "a", "b", (1, 1), "x", nth=1).id


class TestAccepted:
    def test_entries_are_found_by_function_and_line(self, tmp_path):
        page = tmp_path / "mutants.md"
        page.write_text(
            "## billing/ledger.py\n\n"
            "- `credit`: `amount <= 0` → `amount < 0`. Why,\n  and why again.\n"
            "- `…`: `pause = …` → `…`. Only a pause.\n"
        )
        exact = Mutant("billing/ledger.py", "credit", "amount <= 0", "amount < 0", (1, 1), "")
        pause = Mutant("billing/ledger.py", "any", "pause = 1", "pause = 2", (1, 1), "")
        other = Mutant("billing/grants.py", "credit", "amount <= 0", "amount < 0", (1, 1), "")

        found = accepted.read(page)

        assert [each.why for each in found] == ["Why, and why again.", "Only a pause."]
        assert [each.covers(exact) for each in found] == [True, False]
        assert [each.covers(pause) for each in found] == [False, True]
        assert not any(each.covers(other) for each in found)
        assert accepted.unknown(found, [pause, other]) == [found[0]]

    def test_an_entry_without_a_reason_is_an_error(self, tmp_path):
        page = tmp_path / "mutants.md"
        page.write_text("## billing/ledger.py\n\n- `credit`: `amount <= 0` → `amount < 0`.\n")

        with pytest.raises(ValueError, match="not an entry"):
            accepted.read(page)

    def test_entries_of_the_page_are_about_lines_that_are_there(self):
        gone = [
            (each.path, each.where, each.was)
            for each in accepted.read(processes.ROOT / accepted.PAGE)
            for text in [" ".join((processes.ROOT / each.path).read_text().split())]
            if not all(part in text for part in each.was.split(accepted.ANY))
        ]

        assert gone == []


def test_the_tests_that_are_asked_are_there():
    asked = {*scope.FILES, *(file for files in scope.SQL.values() for file in files)}

    assert [file for file in asked if not (processes.ROOT / file).exists()] == []
    assert asked <= {*scope.FILES}


def test_only_files_of_the_scope_are_broken():
    assert scope.chosen(["billing/closures.py"], processes.ROOT) == ["billing/closures.py"]

    with pytest.raises(LookupError):
        scope.chosen(["billing/admin.py"], processes.ROOT)

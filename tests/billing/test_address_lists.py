"""Lists of addresses: read as they are pasted, or refused line by line with what is wrong."""

from __future__ import annotations

import pytest

from billing import address_lists
from billing.address_lists import read
from billing.grants import Named

A, B = "ann@x.io", "bob@x.io"
READ = {
    "lines": (f"{A}\n{B}", [A, B]),
    "crlf": (f"{A}\r\n{B}\r\n", [A, B]),
    "empty lines": (f"\n{A}\n\n \n{B}\n", [A, B]),
    "commas": (f"{A}, {B},", [A, B]),
    "blanks": (f"{A} {B}", [A, B]),
    "tabs": (f"{A}\t{B}", [A, B]),
    "no-break space": (f"{A}\u00a0{B}", [A, B]),
    "ideographic space": (f"{A}\u3000{B}", [A, B]),
    "narrow space": (f"{A}\u2009{B}", [A, B]),
    "upper case": (A.upper(), [A.upper()]),
    "display name": (f"Ann Lee <{A}>", [A]),
    "name with a comma": (f"Lee, Ann <{A}>; Min, Bob <{B}>", [A, B]),
    "quoted name": (f'"Lee, Ann" <{A}>, "Min; Bob" <{B}>', [A, B]),
    "names and commas": (f"Ann Lee <{A}>, Bob Min <{B}>", [A, B]),
    "address then name": (f"{A}, Bob <{B}>", [A, B]),
    "the address as its name": (f"{A} <{A}>, '{B}' <{B}>", [A, B]),
    "angle brackets": (f"<{A}>; <{B}>", [A, B]),
    "brackets without separators": (f"<{A}><{B}>", [A, B]),
    "double quotes": (f'"{A}","{B}"', [A, B]),
    "single quotes": (f"'{A}', '{B}'", [A, B]),
    "curly quotes": (f"\u201c{A}\u201d \u2018{B}\u2019", [A, B]),
    "two in one quoted cell": (f'"{A},{B}"', [A, B]),
    "mailto": (f"mailto:{A}, MAILTO:{B}", [A, B]),
    "mailto in brackets": (f"Ann <mailto:{A}?subject=hi%20there>", [A]),
    "mailto with escapes": ("mailto:ann%40x.io", [A]),
    "full-width comma": (f"{A}\uff0c{B}", [A, B]),
    "ideographic comma": (f"{A}\u3001{B}", [A, B]),
    "full-width semicolon": (f"{A}\uff1b{B}", [A, B]),
    "full-width at": ("ann\uff20x.io", [A]),
    "full-width letters": ("\uff41nn\uff20x\uff0eio", [A]),
    "full-width brackets": (f"Ann \uff1c{A}\uff1e", [A]),
    "zero width": (f"\u200b{A}\u200b", [A]),
    "zero width within": ("ann\u200b@x\u200d.io", [A]),
    "byte order mark": (f"\ufeff{A}", [A]),
    "direction marks": (f"\u200e{A}\u202c", [A]),
    "soft hyphen": ("ann@x\u00ad.io", [A]),
    "a letter that is blank": ("ann\u3164@x.io\ufe0f", [A]),
    "duplicates": (f"{A}\n{A.upper()}\n{A}", [A, A.upper(), A]),
    "table": (f"name,email\nAnn,{A}\nBob,{B}", [A, B]),
    "table with tabs": (f"Email\tName\n{A}\tAnn Lee\n{B}\tBob, Min", [A, B]),
    "table with semicolons": (f"Nom;E-Mail\nAnn;{A}\nBob;{B}", [A, B]),
    "table with quotes": (f'"name","email address"\n"Lee, Ann","{A}"', [A]),
    "table in Chinese": (f"\u59d3\u540d\uff0c\u90ae\u7bb1\nAnn\uff0c{A}", [A]),
    "table with empty rows": (f"\ufeffname,email\n,\nAnn,{A}\n,\n", [A]),
    "head alone": (f"Email\n{A}\n{B}", [A, B]),
}  # fmt: skip
WRONG = {
    "a word": ("bob", ["Line 1: This is not an e-mail address: bob."]),
    "words beside an address": (
        f"{A}, bob, d",
        [
            "Line 1: This is not an e-mail address: bob.",
            "Line 1: This is not an e-mail address: d.",
        ],
    ),
    "on its line": (f"{A}\n\nbob@", ["Line 3: This is not an e-mail address: bob@."]),
    "a bracket that stays open": (f"Ann <{A}", ["<ann@x.io.", "address: Ann."]),
    "two addresses for one": (f'"{B}" <{A}>', ["Which of the two is meant: "]),
    "a link to two": (f"mailto:{A}?cc={B}", ["more than one address"]),
    "a control character": ("ann\x07@x.io", ["address: ann⟨U+0007⟩@x.io."]),
    "something long": ("a" * 300 + "@x.io", ["a" * 60 + "…"]),
    "a name without an address": ("Lee, Ann", ["address: Lee.", "address: Ann."]),
    "a table with a short row": (f"name,email\n{A}", ["has 1 columns, and the first line names 2"]),
    "a table without an address": ("name,email\nAnn,", ["has no e-mail address: Ann,"]),
    "a table with a word": ("name,email\nAnn,bob", ["Line 2: This is not an e-mail address: bob."]),
    "a table with two in one cell": (f'name,email\nAnn,"{A};{B}"', ["more than one address"]),
    "an amount that is none": (
        f"email,amount\n{A},1.5\n{B},\n{A},10001\n{B},-3",
        ["Line 2: The amount has to be a whole number from 1 to 10,000: 1.5.",
         "Line 3: The amount has to be a whole number from 1 to 10,000: nothing.",
         "10001", "-3"],
    ),
    "an amount beside two": (f"{A} {B} 100", ["This is not an e-mail address: 100."]),
    "zero beside an address": (f"{A} 0", ["from 1 to 10,000: 0."]),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_is_read_as_it_comes(case):
    text, emails = READ[case]

    listed = read(text)

    assert listed.mistakes == ()
    assert [each.email for each in listed.found] == emails


@pytest.mark.parametrize("case", WRONG)
def test_says_what_is_wrong_with_each_part(case):
    text, said = WRONG[case]

    mistakes = list(map(str, read(text).mistakes))

    assert len(mistakes) == len(said)
    assert all(part in mistake for part, mistake in zip(said, mistakes, strict=True)), mistakes
    assert all(each.isprintable() for each in mistakes)


class TestAmounts:
    @pytest.mark.parametrize(
        "text",
        [
            f"{A},100\n{B} 250",
            f"{A}\t100\n{B}; 250",
            f"100 {A}\n250,{B}",
            f"email,amount,name\n{A},100,Ann\n{B},250,Bob",
            f"Flux;Mail\n100;{A}\n\uff12\uff15\uff10;{B}",
        ],
    )
    def test_stand_beside_their_address(self, text):
        listed = read(text)

        people = [(each.email, each.amount) for each in listed.people(None)]
        assert people == [(A, 100), (B, 250)]
        assert listed.has_amounts

    def test_are_the_one_for_everybody_where_there_is_none(self):
        assert read(f"{A} {B}").people(7) == (Named(A, 7, A), Named(B, 7, B))

    def test_of_a_table_without_the_column_are_none(self):
        listed = read(f"name,email,team\nAnn,{A},red")

        assert not listed.has_amounts
        assert listed.unused == ("name", "team")


def test_keeps_how_each_was_pasted():
    listed = read(f"Lee, Ann <{A}>; \u200b{B}\uff0c'cyd@x.io'\ndee@x.io 5")

    assert [each.pasted for each in listed.found] == [
        f"Lee, Ann <{A}>", f"\u200b{B}", "'cyd@x.io'", "dee@x.io 5",
    ]  # fmt: skip


def test_shows_what_cannot_be_seen():
    assert address_lists.visible("a\u200bb\u3164c d") == "a⟨U+200B⟩b⟨U+3164⟩c d"


@pytest.mark.parametrize("sign", [",", '"', "<", "a,", "@,", "@\n", "a@x.io,", "=\t", "\u200b"])
def test_is_not_read_on_for_ever(sign):
    listed = read(sign * (100_000 // len(sign)))

    # The words of one line are one line's mistakes.
    assert len(listed.found) <= 1 + address_lists.MAX_PARTS
    assert len({each.line for each in listed.mistakes}) <= 2 + address_lists.MAX_PARTS
    assert sign not in ("@\n", "a@x.io,") or "too much" in str(listed.mistakes[-1])

"""`./run mutants [PATH …]`: break billing and the gateway, and say which tests noticed.

Exits with 1 if fewer than nine in ten were noticed.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Sequence

from airi_server.launch import processes
from tests.mutants import accepted, catalog, reach, scope, typecheck
from tests.mutants.accepted import Accepted
from tests.mutants.mutant import Mutant
from tests.mutants.reach import Reach
from tests.mutants.stage import CACHE, Stage, mutable, stage
from tests.mutants.verdicts import NOTICED, STILLBORN, SURVIVED, Verdict, Verdicts, digest


def main(arguments: Sequence[str]) -> None:
    options = _options(arguments)
    try:
        paths = mutable(options.paths)
    except LookupError as unknown:
        sys.exit(f"./run mutants: {unknown}")
    mutants = [
        one for path in paths for one in catalog.mutants_of(processes.ROOT, path, CACHE / "catalog")
    ]
    if options.count:
        for path, number in Counter(one.path for one in mutants).items():
            print(f"{number:6}  {path}")
        print(f"{len(mutants):6}  in all")
        return
    known = accepted.read(processes.ROOT / accepted.PAGE)
    for gone in accepted.unknown([each for each in known if each.path in paths], mutants):
        print(f"{accepted.PAGE}: no such mutant any more: {gone.path} {gone.where} {gone.was}")
    if options.sample and options.sample < len(mutants):
        chance = random.Random(options.seed)
        picked = set(chance.sample(range(len(mutants)), options.sample))
        mutants = [one for number, one in enumerate(mutants) if number in picked]
    if options.again:
        (CACHE / "verdicts.jsonl").unlink(missing_ok=True)
    with stage(scope.FILES) as ready:
        reached = reach.found_in(ready.tree, CACHE / "reach", scope.FILES, ready.reach_of)
        reached.budget_s = options.budget
        verdicts = _tried(ready, mutants, known, reached)
    sys.exit(0 if _report(mutants, verdicts) else 1)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run mutants", description=__doc__)
    parser.add_argument("paths", nargs="*", help="files or directories of the scope; all of it")
    parser.add_argument("--sample", type=int, metavar="N", help="only N of them, by chance")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="which N; 1")
    parser.add_argument(
        "--budget", type=float, default=reach.BUDGET_S, metavar="SECONDS",
        help=f"how long the tests of one mutant may take; {reach.BUDGET_S:.0f}",
    )  # fmt: skip
    parser.add_argument("--again", action="store_true", help="forget what earlier runs found")
    parser.add_argument("--count", action="store_true", help="only say how many there are")
    return parser.parse_args(arguments)


def _tried(
    ready: Stage, mutants: list[Mutant], known: list[Accepted], reached: Reach
) -> dict[str, Verdict]:
    for test in reached.failed:
        print(f"fails on the healthy code, and is not asked: {test}", flush=True)
    kept = Verdicts(CACHE / "verdicts.jsonl")
    verdicts: dict[str, Verdict] = {}
    for number, one in enumerate(mutants, start=1):
        verdict = _verdict(ready, one, known, kept, reached)
        verdicts[one.id] = verdict
        if verdict.outcome in SURVIVED - {"accepted"}:
            print(f"{number}/{len(mutants)} {verdict.outcome}: {one}", flush=True)
    return verdicts


def _verdict(
    ready: Stage, one: Mutant, known: list[Accepted], kept: Verdicts, reached: Reach
) -> Verdict:
    code = digest([(ready.tree / one.path).read_text(encoding="utf-8")])
    tests = reached.of(one)
    files = sorted({test.partition("::")[0] for test in tests})
    asked = digest(
        [typecheck.NAME, *tests]
        + [(ready.tree / file).read_text(encoding="utf-8") for file in files]
    )
    found = kept.of(one, code, asked)
    if found is not None and found.is_noticed:
        return found
    if any(each.covers(one) for each in known):
        return Verdict(one.id, "accepted", code, asked)
    if found is not None:
        return found
    said = ready.attempt(one, reached)
    verdict = Verdict(
        one.id, said["outcome"], code, asked, said.get("by", ""), said.get("seconds", 0.0)
    )
    kept.add(verdict)
    return verdict


def _report(mutants: list[Mutant], verdicts: dict[str, Verdict]) -> bool:
    """Print a line for each file and the score; return whether it is high enough."""
    outcomes: dict[str, Counter[str]] = {}
    for one in mutants:
        outcomes.setdefault(one.path, Counter())[verdicts[one.id].outcome] += 1
    print(f"\n{'killed':>7}{'timeout':>8}{'accepted':>9}{'survived':>9}{'noticed':>9}")
    total: Counter[str] = Counter()
    for path, counted in outcomes.items():
        print(_line(counted, path))
        total += counted
    print(_line(total, "in all"), flush=True)
    return _share(total) >= scope.GOAL


def _line(counted: Counter[str], path: str) -> str:
    survived = counted["survived"] + counted["out of reach"]
    return (
        f"{counted['killed'] + counted['crashed']:7}{counted['timeout']:8}"
        f"{counted['accepted']:9}{survived:9}{_share(counted):9.1%}  {path}"
    )


def _share(counted: Counter[str]) -> float:
    noticed = sum(counted[outcome] for outcome in NOTICED)
    everything = sum(number for outcome, number in counted.items() if outcome != STILLBORN)
    return noticed / everything if everything else 1.0


if __name__ == "__main__":
    main(sys.argv[1:])

"""Mutation testing of what moves Flux: break the code once, and see whether a test notices.

`./run mutants` breaks each function of `scope.py` in every way that `python.py` and `sql.py` know,
one at a time, in a copy of the tree, and runs the tests that reach the broken line. What nobody
notices is a survivor: it is listed, and either gets a test or a reason in docs/mutants.md.
"""

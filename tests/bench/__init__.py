"""The benchmark of `docs/` and of nobody's laptop in particular: its own storage, its own load.

`python -m tests.bench` (or `./run bench`) starts a durable PostgreSQL, Valkey, an upstream and the
server as separate processes, and prints one line a case and a table of the goals. `./run bench
PART` measures one thing by itself, `./run bench all` everything. What it promises is that the
numbers belong to exact money: a part whose answers, rows and debits differ ends the run with
status 1. Rates are this machine's in this minute; CPU seconds per 1,000 are the yardstick.
"""

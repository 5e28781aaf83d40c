"""Faults on purpose: real processes are cut, killed, paused and restarted while clients work.

`python -m tests.chaos` (or `./run chaos`) has people pay for completions, operators grant and
others chat, on two instances behind a balancer; `./run chaos chat` keeps a dozen people writing in
several chats. Both end with what every client knows held against the database's rows. The seed
decides which faults come when; what happens meanwhile also depends on how fast the machine is.
Any difference ends the run with status 1.
"""

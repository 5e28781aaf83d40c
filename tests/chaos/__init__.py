"""Faults on purpose: real processes are cut, killed, paused and restarted while clients work.

`python -m tests.chaos chat` (or `./run chaos chat`) keeps a dozen people writing in several chats
on two instances behind a balancer, and ends with every client's state held against the database's
rows. The seed decides which faults come when; what the clients do meanwhile also depends on how
fast the machine is. Any difference ends the run with status 1.
"""

"""The benchmark of the chat socket: one server process, a load process apart, exact counts.

`python -m tests.bench.chat` (or `./run bench chat`) sends as much as one chat of 50 receivers
takes, then a paced 50 messages/s, holds 2,000 idle sockets, and pulls from a chat of a million
messages. Every socket's numbers are held against the chat's: one that is missing, doubled or out
of order ends the run with status 1. Goals are printed with what was measured; a missed one is
said and changes nothing.
"""

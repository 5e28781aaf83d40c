"""One rig for all that needs whole servers: bench, chaos, faults, perf and the tests of processes.

`server` starts one as a deployment does, `instances` many at once by a `nursery` that has imported
everything, `balancer` stands in front of them, `books` says whether the money adds up after it.
"""

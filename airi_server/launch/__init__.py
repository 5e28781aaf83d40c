"""What `./run` hands over to: the servers, the environment and the checks on one machine.

Nothing here runs in a deployment. A module may read the environment and start processes; the
rest of the project may not.
"""

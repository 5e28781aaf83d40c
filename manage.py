#!/usr/bin/env python
"""Django's commands. `./run manage …` calls them with the environment of the running stack."""

import os
import sys


def main() -> None:
    # What serves people is held to what a deployment must have, unless told otherwise.
    kind = "production" if sys.argv[1:2] == ["serve"] else "dev"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", f"airi_server.settings.{kind}")
    from airi_server import boot

    boot.run_command(sys.argv)


if __name__ == "__main__":
    main()

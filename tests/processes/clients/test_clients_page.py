"""docs/clients.md: each of its examples is run as it stands there, against a server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import httpx
import pytest
from django.conf import settings

from tests.factories import gateway
from tests.fakes.upstream import stream
from tests.processes.clients import node
from tests.processes.clients.test_openai import OPENAI_NODE

PAGE = (settings.BASE_DIR / "docs" / "clients.md").read_text()
HERE, KEY = "http://127.0.0.1:8000", "sk-airi-..."
SAID = "Hello there."


def examples(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def caller(transactional_db, provider):
    gateway.make_route(provider.base_url)
    return gateway.make_caller(flux=1000)


@pytest.fixture
def run(server, caller):
    """Return what runs an example with the server's address and a key."""

    def one(program, *command, cwd=None):
        text = program.replace(HERE, server.base_url).replace(KEY, caller.key)
        assert text != program
        ran = subprocess.run(
            [*command, text], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return one


def paid(server, caller):
    """Return what each of the caller's requests cost."""
    told = httpx.get(
        f"{server.base_url}/api/v1/flux/requests",
        headers={"Authorization": f"Bearer {caller.key}"},
    ).json()
    return [record["fluxCharged"] for record in told["records"]]


def keyed(language):
    (found,) = [each for each in examples(language) if "Idempotency-Key" in each]
    return found


class TestSentAgain:
    """Twice the same program: one upstream call, one charge, the same answer."""

    def test_by_openai_python(self, run, server, caller, provider):
        program = keyed("python")

        said = [run(program, sys.executable, "-c") for _ in range(2)]

        assert said == [f"{SAID}\n"] * 2
        assert len(provider.seen) == len(paid(server, caller)) == 1

    @pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
    def test_by_curl(self, run, server, caller, provider):
        program = keyed("sh")

        first, second = [run(program, "sh", "-c") for _ in range(2)]

        assert json.loads(first)["choices"][0]["message"]["content"] == SAID
        assert first == second
        assert len(provider.seen) == len(paid(server, caller)) == 1

    @node.needed
    def test_by_openai_node(self, run, server, caller, provider):
        home = node.script("openai_node.mjs", OPENAI_NODE).parent
        program = keyed("js")

        command = ("node", "--input-type=module", "-e")
        said = [run(program, *command, cwd=home) for _ in range(2)]

        assert said == [f"{SAID}\n"] * 2
        assert len(provider.seen) == len(paid(server, caller)) == 1

    @node.needed
    def test_by_openai_node_s_own_option_pays_twice(self, run, server, caller, provider):
        """Should the SDK ever send it, the page is wrong."""
        home = node.script("openai_node.mjs", OPENAI_NODE).parent
        header = '{ headers: { "Idempotency-Key": "node-4711" } }'
        program = keyed("js")
        assert header in program
        other = program.replace(header, '{ idempotencyKey: "node-4711" }')

        for _ in range(2):
            run(other, "node", "--input-type=module", "-e", cwd=home)

        assert len(provider.seen) == len(paid(server, caller)) == 2


class TestOthers:
    def test_the_first_python_example_answers(self, run):
        assert run(examples("python")[0], sys.executable, "-c") == f"{SAID}\n"

    @pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
    def test_the_balance_is_asked_for(self, run, caller):
        (program,) = [each for each in examples("sh") if "/flux/requests" in each]

        told = run(program, "sh", "-c")

        assert '"flux":1000' in told.replace(" ", "")
        assert '"records":[]' in told.replace(" ", "")

    @node.needed
    def test_the_readme_s_javascript_streams(self, server, caller, provider):
        readme = (settings.BASE_DIR / "README.md").read_text()
        (program,) = re.findall(r"^```js\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
        home = node.script("openai_node.mjs", OPENAI_NODE).parent

        provider.script(stream())
        ran = subprocess.run(
            ["node", "--input-type=module", "-e", program.replace(HERE, server.base_url)],
            cwd=home, env={**os.environ, "AIRI_KEY": caller.key}, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

        assert (ran.returncode, ran.stdout) == (0, "Hello")

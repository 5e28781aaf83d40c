"""`./run` and what it starts with, short of a whole server."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from airi_server.launch import environment, processes, ready, serve, tests, upstreams
from airi_server.launch.upstreams import LaunchUpstream

RUN = processes.ROOT / "run"


@pytest.mark.parametrize("script", ["run", ".ci/run"])
def test_the_scripts_parse(script: str) -> None:
    path = processes.ROOT / script
    shell = path.read_text().splitlines()[0].split()[0].rsplit("/", 1)[1].replace("env", "bash")
    subprocess.run([shell, "-n", str(path)], check=True)
    assert path.stat().st_mode & stat.S_IXUSR


def test_help_needs_no_setup() -> None:
    environ = {"PATH": "/usr/bin:/bin"}
    said = subprocess.run([RUN, "--help"], env=environ, capture_output=True, text=True, check=True)
    commands = ("test", "check", "manage", "bench")
    options = ("--browser", "--clients", "--screenshots", "--port", "--llm")
    for each in (*(f"./run {command}" for command in commands), *options):
        assert each in said.stdout


def test_what_it_starts_may_keep_its_bytecode(tmp_path: Path) -> None:
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nenv\n")
    python.chmod(0o755)
    for place in ("requirements-launch.txt", ".venv/requirements-launch.txt"):
        shutil.copyfile(processes.ROOT / "requirements-launch.txt", tmp_path / place)
    shutil.copy(RUN, tmp_path / "run")
    environ = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "LOG_LEVEL": "INFO"}

    said = subprocess.run(
        [tmp_path / "run"], env=environ, capture_output=True, text=True, check=True
    )

    assert "LOG_LEVEL=INFO" in said.stdout
    assert "PYTHONDONTWRITEBYTECODE" not in said.stdout


@pytest.mark.parametrize(
    ("option", "wanted"), [("--browser", "a browser first"), ("--clients", "Node first")]
)
def test_tests_that_must_run_say_in_one_line_what_is_missing(option: str, wanted: str) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "airi_server.launch", "test", option],
        cwd=processes.ROOT,
        env={"PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 1
    assert said.stderr.startswith(f"./run test {option}: install {wanted}")
    assert said.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "of_pytest"),
    [
        (["--clients"], ["tests/processes/clients"]),
        (["--clients", "-q"], ["tests/processes/clients", "-q"]),
        (
            ["--clients", "tests/processes/clients/test_eventa.py"],
            ["tests/processes/clients/test_eventa.py"],
        ),
        (["tests/billing", "-k", "hold"], ["tests/billing", "-k", "hold"]),
    ],
)
def test_an_option_stands_for_the_directory_of_its_tests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: list[str], of_pytest: list[str]
) -> None:
    for name in ("node", "npm"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("AIRI_CLIENTS", "")

    assert tests._of_pytest(given) == of_pytest
    assert os.environ["AIRI_CLIENTS"] == ("required" if "--clients" in given else "")


@pytest.mark.parametrize(
    ("installed", "command", "browser", "expected"),
    [
        ("", "serve", "chromium", "requirements-launch.txt"),
        ("", "test", "", "requirements-dev.txt"),
        ("", "check", "chromium", "requirements-dev.txt"),
        ("", "test", "chromium", "requirements-e2e.txt"),
        ("", "test", "google-chrome", "requirements-e2e.txt"),
        ("dev", "serve", "chromium", "requirements-dev.txt"),
        ("e2e", "serve", "", "requirements-e2e.txt"),
        ("e2e", "check", "", "requirements-e2e.txt"),
    ],
)
def test_a_command_installs_what_it_needs_and_removes_nothing(
    tmp_path: Path, installed: str, command: str, browser: str, expected: str
) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / "bin").mkdir()
    if installed:
        (tmp_path / f".venv/requirements-{installed}.txt").touch()
    if browser:
        (tmp_path / "bin" / browser).touch(mode=0o755)
    functions = RUN.read_text().partition("# A copy of the list")[0].partition("set -eu")[2]
    script = functions.replace('cd "$(dirname "$0")"', "") + f"\nwanted_list {command}"

    said = subprocess.run(
        ["/bin/sh", "-c", script],
        cwd=tmp_path,
        env={"PATH": str(tmp_path / "bin")},
        capture_output=True,
        text=True,
        check=True,
    )

    assert said.stdout.strip() == expected


def test_an_unknown_command_is_one_line() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "airi_server.launch", "fly"],
        cwd=processes.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 1
    assert said.stderr.count("\n") == 1


def test_a_taken_port_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server((processes.LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit, match=f"^./run: --port {port} is taken. Free it, or"):
            serve.main(["--port", str(port)])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--port", "http"], "--port: 'http' is no whole number from 1 to 65535"),
        (["--port", "0"], "--port: '0' is no whole number from 1 to 65535"),
        (["--port", "65536"], "--port: '65536' is no whole number from 1 to 65535"),
        (["--workers", "x"], "--workers: 'x' is no whole number from 1 to 64"),
        (["--prot", "1"], "unrecognized arguments: --prot 1"),
    ],
)
def test_a_wrong_argument_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        serve.main(arguments)

    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("./run: ")
    assert f"{line}. ./run --help" in said
    assert said.count("\n") == 1


def test_a_place_is_meant_from_where_the_caller_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "there/.venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nenv\n")
    python.chmod(0o755)
    for place in ("requirements-launch.txt", ".venv/requirements-launch.txt"):
        shutil.copyfile(processes.ROOT / "requirements-launch.txt", tmp_path / "there" / place)
    shutil.copy(RUN, tmp_path / "there/run")
    said = subprocess.run(
        ["there/run", "--data", "mine"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"AIRI_CALLED_FROM={tmp_path}\n" in said.stdout

    monkeypatch.setenv("AIRI_CALLED_FROM", str(tmp_path))
    assert environment.data_directory(Path("mine")) == tmp_path / "mine"
    assert environment.data_directory(tmp_path / "other") == tmp_path / "other"
    assert environment.data_directory(None) == processes.ROOT / ".data"


@pytest.mark.parametrize("name", ["uv", "llm", "launch", "dev", "e2e"])
def test_what_is_installed_is_pinned_by_hash_and_names_no_host(name: str) -> None:
    content = (processes.ROOT / f"requirements-{name}.txt").read_text()
    pins = re.findall(r"^[a-z0-9-]+==\S+ \\$", content, re.MULTILINE)
    assert pins
    assert content.count("--hash=sha256:") >= len(pins)
    assert "://" not in content


def test_secrets_are_made_once_and_yield_to_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("SECRET_KEY", "LLM_ROUTER_MASTER_KEY")
    applied = []
    for _ in range(2):
        with monkeypatch.context() as patch:
            for name in names:
                patch.delenv(name, raising=False)
            environment.apply(tmp_path)
            applied.append([os.environ[name] for name in names])
    assert applied[0] == applied[1]
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600

    monkeypatch.setenv("SECRET_KEY", "the caller's")
    environment.apply(tmp_path)
    assert os.environ["SECRET_KEY"] == "the caller's"


def models(upstream: LaunchUpstream) -> int:
    host, port = re.match(r"http://(.+):(\d+)/v1", upstream.base_url).groups()  # type: ignore[union-attr]
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=10)) as connection:
        headers = {"Authorization": f"Bearer {upstream.key}"}
        connection.request("GET", "/v1/models", headers=headers)
        return connection.getresponse().status


@pytest.fixture
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENROUTER_KEY", raising=False)


def asked_for(chosen: upstreams.Upstreams) -> LaunchUpstream:
    assert chosen.asked_for is not None
    return chosen.asked_for


@pytest.mark.usefixtures("_no_key")
def test_the_demo_keeps_its_address_and_may_be_started_twice(tmp_path: Path) -> None:
    with upstreams.chosen(tmp_path, with_llm=False) as first:
        assert models(asked_for(first)) == 200
        with upstreams.chosen(tmp_path, with_llm=False) as second:
            assert second == first
    with upstreams.chosen(tmp_path, with_llm=False) as third:
        assert third == first
        assert "ECHOES" in asked_for(third).description
        assert models(asked_for(third)) == 200


@pytest.mark.usefixtures("_no_key")
def test_what_the_routes_lead_to_is_started_and_nothing_else(tmp_path: Path) -> None:
    with upstreams.chosen(
        tmp_path, with_llm=False, routed=["https://openrouter.ai/api/v1"]
    ) as none:
        assert none == upstreams.Upstreams({}, None)
    with upstreams.chosen(tmp_path, with_llm=False) as first:
        (url,) = first.running
    with upstreams.chosen(tmp_path, with_llm=False, routed=[url]) as again:
        assert (list(again.running), again.asked_for) == ([url], None)
        assert models(again.running[url]) == 200

    # Something else has taken its port meanwhile: it has to be routed to anew.
    with socket.create_server(("127.0.0.1", int(url.split(":")[2].split("/")[0]))):
        with upstreams.chosen(tmp_path, with_llm=False, routed=[url]) as moved:
            assert asked_for(moved).base_url != url
            assert models(asked_for(moved)) == 200


def test_an_openrouter_key_wins_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENROUTER_KEY", "sk-or-of-the-tests")
    with upstreams.chosen(tmp_path, with_llm=True) as chosen:
        upstream = asked_for(chosen)
        assert upstream.base_url == "https://openrouter.ai/api/v1"
        assert upstream.key == "sk-or-of-the-tests"
        assert upstream.key not in upstream.description
    assert capsys.readouterr().out.startswith("./run: OPENROUTER_KEY is set and wins over --llm")


@pytest.mark.django_db
def test_a_key_that_was_pasted_with_its_quotes_ends_the_start_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_KEY", '"sk-of-the-tests"')

    with contextlib.ExitStack() as running, pytest.raises(SystemExit) as ended:
        serve._routed(tmp_path, running, with_llm=False)

    said = str(ended.value)
    assert said.startswith("./run: OpenRouter")
    assert "The key stands in quotation marks" in said
    assert "sk-of-the-tests" not in said


def test_the_curl_of_the_ready_block_can_be_pasted() -> None:
    from airi_server.launch.demo import Demo

    demo = Demo("sk-airi-x", "demo@example.com", "one", "admin@example.com", "two")
    where = ("it's mine", "an upstream")
    block = ready.block("http://127.0.0.1:8000", demo, *where, data=Path(".data"))

    command = shlex.split(block[block.index("curl") : block.index("\n\n  Chat")])
    assert command[:3] == ["curl", "-N", "http://127.0.0.1:8000/v1/chat/completions"]
    assert "Authorization: Bearer sk-airi-x" in command
    assert json.loads(command[-1])["model"] == "it's mine"
    # Behind the #, which no server and no log ever sees.
    assert "http://127.0.0.1:8000/app/chat#key=sk-airi-x\n" in block


def test_every_variable_of_the_settings_is_in_the_example() -> None:
    # In a process of its own: what else has read the environment here is not the settings' doing.
    script = "import airi_server.settings.dev; from airi_server import env; print(*env.READ)"
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=processes.ROOT, capture_output=True, check=True
    )
    example = (processes.ROOT / ".env.example").read_text()
    named = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", example, re.MULTILINE))
    assert set(said.stdout.decode().split()) - named == set()

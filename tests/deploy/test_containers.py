"""The image and the compose file, as far as that goes without an engine.

The image's steps are taken in an empty directory: what `Dockerfile` copies is all that is there.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from django.core.management import get_commands

from airi_server.launch import processes
from tests import serving_role
from tests.lab.server import ROOT, database_url

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()
HOST = "api.example.com"


def copied():
    """Return what the image has of this tree."""
    lines = DOCKERFILE.replace("\\\n", " ").splitlines()
    words = [shlex.split(line)[1:-1] for line in lines if line.startswith("COPY ")]
    return [each for line in words for each in line if not line[0].startswith("--from")]


@pytest.fixture
def tree(tmp_path):
    """A directory with nothing but what the image copies."""
    made = tmp_path / "srv"
    for name in copied():
        source, place = ROOT / name, made / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, place)
    return made


def environment(tmp_path):
    spool = tmp_path / "tmp"
    spool.mkdir(exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(spool),
        "DJANGO_SETTINGS_MODULE": "airi_server.settings.production",
        "DATABASE_URL": database_url(serving_role.ROLE, serving_role.PASSWORD),
        "REDIS_URL": os.environ["REDIS_URL"],
        "SECRET_KEY": secrets.token_urlsafe(48),
        "LLM_ROUTER_MASTER_KEY": base64.b64encode(os.urandom(32)).decode(),
        "ALLOWED_HOSTS": HOST,
        "API_SERVER_URL": f"https://{HOST}",
        "TRUSTED_PROXIES": "127.0.0.1/32",
        "TRUST_X_FORWARDED_PROTO": "true",
    }


def files_of(tree: Path):
    return {each: each.stat().st_mtime_ns for each in tree.rglob("*") if each.is_file()}


@pytest.mark.django_db(transaction=True)
def test_what_the_image_copies_serves_and_writes_nothing(tree, tmp_path):
    environ = environment(tmp_path)
    ran = {"cwd": tree, "env": environ, "capture_output": True, "text": True, "timeout": 120}
    collected = subprocess.run(
        [sys.executable, "manage.py", "collectstatic", "--noinput"], **ran, check=False
    )
    assert collected.returncode == 0, collected.stderr
    before = files_of(tree)
    port = processes.free_port()
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = [sys.executable, "manage.py", "serve", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(command, cwd=tree, env=environ, stdout=output, stderr=output)
    headers = {"Host": HOST, "X-Forwarded-Proto": "https"}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            until = time.monotonic() + 60
            while processes.probe(port, "/readyz", timeout_s=5) != 200:
                assert time.monotonic() < until, log.read_text()
                assert server.poll() is None, log.read_text()
                time.sleep(0.05)
            login = client.get("/admin/login/")
            style = re.search(r'href="(/static/console/console\.[0-9a-f]+\.css)"', login.text)
            assert style, log.read_text()[-2_000:]
            assert client.get(style[1]).status_code == 200
            assert client.get("/docs").status_code == 200
            # A body as long as there may be one here.
            sent = client.post("/admin/login/", files={"file": ("a.txt", b"x" * 900_000)})
            assert sent.status_code in (401, 403, 413)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    assert files_of(tree) == before
    said = [line for line in log.read_text().splitlines() if not line.startswith("{")]
    assert [line for line in said if not line.startswith("Listening at ")] == []


class TestImage:
    def test_copies_what_is_there(self):
        assert [name for name in copied() if not (ROOT / name).exists()] == []

    def test_installs_what_production_imports_and_nothing_else(self):
        assert re.findall(r"-r (\S+)", DOCKERFILE) == ["requirements.txt"]

    def test_runs_as_nobody_in_particular(self):
        assert re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE) == ["10001"]

    def test_names_no_host(self):
        assert re.findall(r"FROM (\S+)", DOCKERFILE) == ["${PYTHON}", "${PYTHON}"]
        for image in re.findall(r"image: (\S+)", COMPOSE):
            assert "." not in image.split(":")[0]


class TestComposition:
    def test_sets_variables_that_the_server_reads(self):
        block = COMPOSE[COMPOSE.index("&environment") : COMPOSE.index("user: ")]
        names = re.findall(r"^    ([A-Z_]+):", block, re.MULTILINE)
        known = (ROOT / ".env.example").read_text()

        assert len(names) > 5
        assert [
            name for name in names if not re.search(rf"^#? ?{name}=", known, re.MULTILINE)
        ] == []

    def test_runs_commands_that_there_are(self):
        names = re.findall(r"manage\.py ([a-z-]+)", COMPOSE + DOCKERFILE)

        assert {"migrate", "grant-serving-role", "reconcile-usage", "clear-expired"} <= {*names}
        assert {*names} <= {*get_commands()}

    def test_waits_for_what_is_under_way(self):
        (delay,) = re.findall(r'SHUTDOWN_DELAY_S: "(\d+)"', COMPOSE)
        (grace,) = re.findall(r"stop_grace_period: (\d+)s", COMPOSE)

        assert int(grace) >= int(delay) + 25 + 35

    def test_runs_every_command_of_the_clock(self):
        page = (ROOT / "docs" / "deploy.md").read_text()
        table = page[page.index("## By the clock") : page.index("What `clear-expired` deletes")]
        commands = re.findall(r"^\| `([a-z-]+)[^`]*` \|", table, re.MULTILINE)

        assert len(commands) >= 2
        assert [each for each in commands if f"manage.py {each}" not in COMPOSE] == []

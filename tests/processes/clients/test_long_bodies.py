"""Bodies that are far too long: every client reads why they were refused, and meets no reset."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from openai import OpenAI

from tests.factories import gateway
from tests.processes.clients import node
from tests.processes.clients.test_openai import OPENAI_NODE

STRANGER = "sk-airi-no"
PATH = "/v1/chat/completions"
SIZES = (34_000_000, 100_000_000)
REFUSED = (401, 413)
"""Somebody unknown hears of that, or of the length: whichever comes first."""

SIZED = pytest.mark.parametrize("size", SIZES, ids="{:,}".format)
FROM_BOTH = pytest.mark.parametrize("is_known", [True, False], ids=["known", "unknown"])


@pytest.fixture
def key(transactional_db, provider, is_known):
    gateway.make_route(provider.base_url)
    return gateway.make_caller(flux=1000).key if is_known else STRANGER


@pytest.fixture
def expected(is_known):
    return (413,) if is_known else REFUSED


def headers_of(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}


def pieces(size: int) -> Iterator[bytes]:
    for start in range(0, size, 65_536):
        yield b"x" * min(65_536, size - start)


@SIZED
@FROM_BOTH
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
class TestPython:
    def test_http_client(self, server, key, expected, size, is_chunked):
        place = urlsplit(server.base_url)
        client = HTTPConnection(str(place.hostname), place.port, timeout=30)
        body = pieces(size) if is_chunked else b"x" * size

        client.request("POST", PATH, body, headers_of(key), encode_chunked=is_chunked)
        answered = client.getresponse()

        assert answered.status in expected
        assert json.loads(answered.read())["error"]["code"] in ("PAYLOAD_TOO_LARGE", "UNAUTHORIZED")
        client.close()

    def test_httpx(self, server, key, expected, size, is_chunked):
        body = pieces(size) if is_chunked else b"x" * size

        answered = httpx.post(
            server.base_url + PATH, content=body, headers=headers_of(key), timeout=30
        )

        assert answered.status_code in expected

    def test_curl(self, server, key, expected, size, is_chunked, tmp_path):
        curl = shutil.which("curl")
        if curl is None:
            pytest.skip("no curl on this machine")
        (tmp_path / "body").write_bytes(b"x" * size)
        how = ["-H", "Transfer-Encoding: chunked"] if is_chunked else []
        authorization = f"Authorization: Bearer {key}"

        ran = subprocess.run(
            [curl, "-sS", "-m", "30", "-o", str(tmp_path / "answer"), "-w", "%{http_code}", *how,
             "-H", authorization, "--data-binary", f"@{tmp_path / 'body'}", server.base_url + PATH],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

        assert (ran.returncode, ran.stderr) == (0, "")
        assert int(ran.stdout) in expected


@SIZED
@FROM_BOTH
def test_openai_python(server, key, expected, size):
    with OpenAI(base_url=f"{server.base_url}/v1", api_key=key, max_retries=0) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "x" * size}]
            )

    assert refused.value.status_code in expected


@node.needed
@pytest.mark.parametrize("is_known", [True])
def test_openai_node_and_fetch(server, key):
    script = node.script("openai_node_long.mjs", OPENAI_NODE)

    ran = subprocess.run(
        ["node", script.name],
        cwd=script.parent,
        env={**os.environ, "BASE_URL": f"{server.base_url}/v1", "API_KEY": key},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    known, unknown = json.loads(ran.stdout)[:4], json.loads(ran.stdout)[4:]
    assert known == [413] * 4
    assert set(unknown) <= set(REFUSED)
    assert len(unknown) == 4

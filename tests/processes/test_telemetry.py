"""What the server tells an OTLP collector, by the names of the contract (§12)."""

from __future__ import annotations

import contextlib
import signal

import httpx
import orjson

from tests.factories import gateway
from tests.fakes.otlp import Receiver, attributes
from tests.fakes.upstream import answer, chunk, refuse, stream
from tests.lab.server import ServerProcess

BODY = {"model": "auto", "messages": [{"role": "user", "content": "the secret prompt"}]}
MODEL = "chat-default"


def post(server: ServerProcess, key: str, **body: object) -> httpx.Response:
    return httpx.post(
        f"{server.base_url}/v1/chat/completions",
        json={**BODY, **body},
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
    )


def test_metrics_span_and_logs_of_the_paid_path(transactional_db, provider, server_log):
    gateway.make_route(provider.base_url, provider.base_url)
    caller = gateway.make_caller(flux=100)
    poor = gateway.make_caller(flux=0)
    with Receiver() as collector:
        with ServerProcess(
            server_log,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_METRIC_EXPORT_INTERVAL_MS="300",
        ) as server:
            provider.script(refuse(500), answer())
            first = post(server, caller.key)
            provider.script(stream())
            post(server, caller.key, stream=True)
            provider.script(stream([chunk()], then="reset"))
            with contextlib.suppress(httpx.RemoteProtocolError):
                post(server, caller.key, stream=True)
            post(server, poor.key)
            httpx.get(f"{server.base_url}/admin/login/")
            server.end(signal.SIGTERM)

    assert collector.total("gen_ai.client.operation.count", gen_ai__request__model=MODEL) == 3
    assert collector.total("gen_ai.client.operation.duration") == 3
    assert collector.total("gen_ai.client.token.usage.input") >= 240
    assert collector.total("gen_ai.client.token.usage.output") >= 80
    assert collector.total("gen_ai.client.first_token.duration") == 2
    assert collector.total("airi.gen_ai.gateway.fallback.count", reason="500", from_key="k1") == 1
    assert collector.total("airi.gen_ai.gateway.upstream.errors", status_code=500) == 1
    assert collector.total("airi.gen_ai.stream.interrupted", stage="mid_stream") == 1
    assert collector.total("airi.billing.flux.consumed") == 3
    assert collector.total("flux.insufficient_balance") == 1
    # Primed: a series exists before its first event.
    assert "airi.gen_ai.gateway.decrypt.failures" in collector.metrics

    span = next(s for s in collector.spans if attributes(s).get("airi.gen_ai.stream") is False)
    assert span.name == "llm.gateway.chat"
    assert attributes(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": MODEL,
        "airi.gen_ai.stream": False,
        "http.response.status_code": 200,
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.output_tokens": 40,
        "airi.billing.flux_consumed": 1,
        "airi.gen_ai.gateway.upstream.url": provider.base_url,
        "airi.gen_ai.gateway.upstream.index": 1,
        "airi.gen_ai.gateway.key.id": "k2",
        "airi.gen_ai.gateway.fallback.depth": 1,
    }
    assert any(attributes(s).get("airi.gen_ai.stream_interrupted") for s in collector.spans)
    assert any("admin/login" in s.name for s in collector.spans)
    assert collector.resources[0]["service.name"] == "server"

    lines = [orjson.loads(line) for line in server_log.read_bytes().splitlines()]
    (told,) = (line for line in lines if line.get("request_id") == first.headers["x-request-id"])
    assert (told["message"], told["status"]) == ("Request ended", 200)
    assert (told["flux"], told["prompt_tokens"]) == (1, 120)
    log = server_log.read_text()
    assert "the secret prompt" not in log
    assert caller.key not in log
    assert "sk-or-test-123" not in log


def test_without_an_endpoint_nothing_is_exported(transactional_db, provider, server):
    gateway.make_route(provider.base_url)
    caller = gateway.make_caller()

    assert post(server, caller.key).status_code == 200

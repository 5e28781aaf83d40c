"""Where connections to upstreams lead: names, addresses, and who answers there over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading

import pytest
import pytest_asyncio
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from llmrouter.routing.failures import BAD_ANSWER, CONNECT, AttemptFailed
from llmrouter.upstream import client, pool
from tests.fakes import raw
from tests.fakes.raw import RawUpstream
from tests.llmrouter.test_upstream_answers import CLOSES, HI, asked


@pytest_asyncio.fixture(autouse=True)
async def _hung_up():
    yield
    await client.close()


@pytest.fixture
def identity(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an upstream")])
    now = datetime.datetime.now(datetime.UTC)
    local = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(local), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "identity.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.mark.asyncio
class TestNames:
    async def test_are_looked_up_once_for_all_who_ask(self, monkeypatch):
        loop = asyncio.get_running_loop()
        found = loop.getaddrinfo
        lookups = 0

        async def counting(*args, **kwargs):
            nonlocal lookups
            lookups += 1
            return await found(*args, **kwargs)

        monkeypatch.setattr(loop, "getaddrinfo", counting)
        async with RawUpstream(raw.says(CLOSES, then="close")) as server:
            named = server.base_url.replace("127.0.0.1", "localhost")
            bodies = await asyncio.gather(*(asked(named) for _ in range(20)))

        assert bodies == [b"hi"] * 20
        assert lookups == 1

    async def test_are_looked_up_again_when_nobody_is_there(self, monkeypatch):
        loop = asyncio.get_running_loop()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            moved = taken.getsockname()[1]
            async with RawUpstream(raw.says(HI)) as server:
                port = int(server.base_url.split(":")[2].split("/")[0])
                ports = iter([moved, port])

                async def moving(*_args, **_kwargs):
                    there = ("127.0.0.1", next(ports))
                    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", there)]

                monkeypatch.setattr(loop, "getaddrinfo", moving)
                with pytest.raises(AttemptFailed) as away:
                    await asked("http://moving.test/v1")
                assert away.value.reason == CONNECT
                assert await asked("http://moving.test/v1") == b"hi"

    async def test_that_could_not_be_looked_up_in_time_are_looked_up_again(self, monkeypatch):
        loop = asyncio.get_running_loop()
        found = loop.getaddrinfo
        lookups = 0

        async def slow_at_first(*args, **kwargs):
            nonlocal lookups
            lookups += 1
            if lookups == 1:
                await asyncio.sleep(0.3)
                raise socket.gaierror(socket.EAI_AGAIN, "not now")
            return await found(*args, **kwargs)

        monkeypatch.setattr(loop, "getaddrinfo", slow_at_first)
        async with RawUpstream(raw.says(CLOSES, then="close")) as server:
            named = server.base_url.replace("127.0.0.1", "localhost")
            with pytest.raises(AttemptFailed):
                await asked(named, first_byte_s=0.1)
            await asyncio.sleep(0.4)
            assert await asked(named) == b"hi"

    async def test_may_be_addresses_of_either_family(self):
        async def listen(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(CLOSES)

        with socket.socket(socket.AF_INET6) as tried:
            try:
                tried.bind(("::1", 0))
            except OSError:
                pytest.skip("this machine has no IPv6")
        async with raw.listening(listen, "::1") as base_url:
            assert await asked(base_url) == b"hi"


@pytest.mark.asyncio
class TestTls:
    @pytest.fixture
    def secured(self, identity):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity)
        return RawUpstream(raw.says(HI), tls=context)

    async def test_is_spoken_with_who_is_trusted(self, secured, identity, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", str(identity))
        pool._tls.cache_clear()
        try:
            async with secured as server:
                for _ in range(3):
                    assert await asked(server.base_url) == b"hi"
                assert await asked(server.base_url, bytes(3_000_000)) == b"hi"
                assert server.connections == 1
        finally:
            pool._tls.cache_clear()

    async def test_is_not_spoken_with_anybody_else(self, secured):
        async with secured as server:
            with pytest.raises(AttemptFailed) as refused:
                await asked(server.base_url)
            assert refused.value.reason == CONNECT
            assert isinstance(refused.value.__cause__, ssl.SSLCertVerificationError)
            assert server.requests == 0


def test_an_answer_over_tls_that_somebody_cut_is_not_taken_for_whole(identity, monkeypatch):
    """Its end is the connection's, and nobody announced it: uvloop, which serves, tells it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(identity))
    pool._tls.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    listener = socket.create_server(("127.0.0.1", 0))

    def answer_and_cut() -> None:
        for _ in range(2):
            incoming, _address = listener.accept()
            with context.wrap_socket(incoming, server_side=True) as secured:
                while not secured.recv(65_536).endswith(b"{}"):
                    pass
                secured.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000)
                if announces.is_set():
                    with contextlib.suppress(OSError):
                        secured.unwrap()

    async def ask() -> bytes:
        try:
            return await asked(f"https://127.0.0.1:{listener.getsockname()[1]}/v1", b"{}")
        finally:
            await client.close()

    announces = threading.Event()
    serving = threading.Thread(target=answer_and_cut)
    serving.start()
    try:
        with pytest.raises(AttemptFailed) as failed:
            uvloop.run(ask())
        assert failed.value.reason == BAD_ANSWER
        announces.set()
        assert uvloop.run(ask()) == b"x" * 1_000
    finally:
        serving.join(10)
        listener.close()
        pool._tls.cache_clear()

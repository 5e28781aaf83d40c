"""Real proxies in front of a server: nginx and HAProxy.

Debian's packages are unpacked and nothing is installed; they are kept in this checkout.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final, Self

import pytest

from airi_server.launch import processes
from tests.lab.instances import Instance
from tests.lab.server import ROOT

HOME: Final = ROOT / ".boot" / "proxies"
_APT: Final = ("apt-get", "dpkg")
_DOWNLOAD: Final = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download"]
_LIBRARIES: Final = ("liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1")
"""What Debian's haproxy is linked with and a small machine lacks."""
_NGINX: Final = """
daemon off;
master_process off;
pid {home}/pid;
error_log {home}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    include {home}/airi.conf;
}}
"""
_TEXTBOOK: Final = """
client_max_body_size 34m;
map $http_upgrade $connection_upgrade {{
    default upgrade;
    ''      '';
}}
upstream airi {{
    server 127.0.0.1:{upstream};
    keepalive 1;
}}
server {{
    listen 127.0.0.1:{port};
    location /admin/ {{
        deny all;
    }}
    location / {{
        proxy_pass http://airi;
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
    }}
}}
"""
"""The configuration that nginx's own documentation has for WebSockets."""


class Proxy:
    """Stands before a server; use as a context manager."""

    def __init__(self, server: Instance, home: Path) -> None:
        self.server = server
        self.port = processes.free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self._home = home
        self._home.mkdir()
        self._command = self._prepared()
        self._environ = {**os.environ, "LD_LIBRARY_PATH": str(_libraries())}

    def _prepared(self) -> list[str]:
        """Write the configuration and return the command."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        log = self._home / "error.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, env=self._environ, stdout=output, stderr=output
            )
        until = time.monotonic() + 10
        while processes.probe(self.port, "/livez") != 200:
            if time.monotonic() > until or self._process.poll() is not None:
                self.__exit__()
                raise RuntimeError(log.read_text())
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)


class Nginx(Proxy):
    """An nginx as its own documentation has it."""

    def _prepared(self) -> list[str]:
        configuration = self._home / "nginx.conf"
        configuration.write_text(_NGINX.format(home=self._home))
        (self._home / "airi.conf").write_text(self._configured())
        return [program("nginx"), "-p", str(self._home), "-c", str(configuration), "-e", "stderr"]

    def _configured(self) -> str:
        """Return what it serves."""
        return _TEXTBOOK.format(port=self.port, upstream=self.server.port)


class DeployedNginx(Nginx):
    """An nginx with `deploy/nginx.conf`, without its TLS."""

    def _configured(self) -> str:
        return deployed(
            "nginx.conf",
            {
                "listen 443 ssl;": f"listen 127.0.0.1:{self.port};",
                "server_name api.example.com;": "",
                "ssl_certificate     /etc/nginx/tls/airi.pem;": "",
                "ssl_certificate_key /etc/nginx/tls/airi.pem;": "",
                "server app1:8000": f"server 127.0.0.1:{self.server.port}",
                "server app2:8000 max_fails=1 fail_timeout=5s;": "",
            },
        )


class DeployedHAProxy(Proxy):
    """An HAProxy with `deploy/haproxy.cfg`, without its TLS."""

    def _prepared(self) -> list[str]:
        configuration = self._home / "haproxy.cfg"
        text = deployed(
            "haproxy.cfg",
            {
                ":443 ssl crt /etc/haproxy/tls/airi.pem alpn h2,http/1.1": f"127.0.0.1:{self.port}",
                "server app1 app1:8000": f"server app1 127.0.0.1:{self.server.port}",
                "server app2 app2:8000": "",
                "${HOST_NAME}": "localhost",
            },
        )
        configuration.write_text(text)
        return [program("haproxy", *_LIBRARIES), "-f", str(configuration)]


def deployed(name: str, replaced: dict[str, str]) -> str:
    """Return a configuration of `deploy/` with what only a deployment has replaced."""
    text = (ROOT / "deploy" / name).read_text()
    for what, by in replaced.items():
        assert what in text, what
        text = text.replace(what, by)
    return text


def program(name: str, *libraries: str) -> str:
    """Return a proxy; where there is none and no way to get it, the test is skipped."""
    found = shutil.which(name)
    if found:
        return found
    if not all(map(shutil.which, _APT)):
        _give_up(f"no {name} on this machine, and no {' and '.join(_APT)} to get it with")
    HOME.mkdir(parents=True, exist_ok=True)
    unpacked = HOME / "unpacked" / "usr" / "sbin" / name
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers want it as well
        if not unpacked.is_file():
            for package in (*libraries, name):  # the program last: it says that all is there
                _unpack(package)
    return str(unpacked)


def _libraries() -> Path:
    places = sorted((HOME / "unpacked" / "usr" / "lib").glob("*-linux-gnu"))
    return places[0] if places else HOME


def _unpack(package: str) -> None:
    got = _run(*_DOWNLOAD, package)
    if got.returncode:  # its lists may be old, or may never have been read
        _run("apt-get", "-qq", "update")
        got = _run(*_DOWNLOAD, package)
    files = sorted(HOME.glob(f"{package}_*.deb"))
    if got.returncode or not files:
        _give_up(f"apt-get has no {package} for this machine: {got.stderr}")
    unpacked = _run("dpkg", "-x", files[-1].name, "unpacked")
    assert unpacked.returncode == 0, unpacked.stderr


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=HOME, capture_output=True, text=True, timeout=120, check=False
    )


def _give_up(why: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)

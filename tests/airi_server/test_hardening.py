"""What production refuses to start with, and what `check --deploy` says of the same."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from airi_server import checks
from airi_server.settings import hardening
from tests.lab.server import ROOT

GOOD = {
    "SECRET_KEY": "Yk3_0pXw9vR2sT7uB1nM5cQ8zL4dF6gH-jK0aS2eW9rE7tY1uI",
    "LLM_ROUTER_MASTER_KEY": "q5H2Jw0Z7m3X9bV1cN8kL4pS6dF0gT2yU5rE7wQ9aBc=",
    "DATABASE_URL": "postgresql://airi_app:9f2b7c@127.0.0.1:5432/airi",
    "REDIS_URL": "redis://127.0.0.1:6379/0",
    "ALLOWED_HOSTS": "api.example.com",
}


def base64_of(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


WEAK_SECRET_KEYS = [
    "", "short", "x" * 49, "x" * 64, "ab" * 30, "0123456789" * 6, "change-me-" * 6,
    "change_me" + "Yk3_0pXw9vR2sT7uB1nM5cQ8zL4dF6gHjK0aS2eW9rE7tY1uI",
    "django-insecure-Yk3_0pXw9vR2sT7uB1nM5cQ8zL4dF6gHjK0aS2eW9r",
    "your-secret-key-goes-here-and-has-to-be-fifty-characters",
    "a key of the tests and of nothing else, long enough for the checks",
    "".join(map(chr, range(35, 95))),
]  # fmt: skip
WEAK_MASTER_KEYS = [
    "", "?", base64_of(b"too short"), base64_of(bytes(33)), base64_of(bytes(32)),
    base64_of(b"\xff" * 32), base64_of(bytes(range(32))), base64_of(bytes(range(32, 0, -1))),
    base64_of(bytes(range(0, 224, 7))), base64_of(b"\xde\xad\xbe\xef" * 8),
    base64_of(bytes(range(16)) * 2), base64_of(bytes(31) + b"\x01"),
    base64_of(b"change-me-change-me-change-me-12"), base64_of(b"correct horse battery staple 123"),
    base64_of(b"thequickbrownfoxjumpsoverthelazy"),
]  # fmt: skip
BAD: dict[str, list[Any]] = {
    "SECRET_KEY": WEAK_SECRET_KEYS,
    "LLM_ROUTER_MASTER_KEY": WEAK_MASTER_KEYS,
    "ALLOWED_HOSTS": [
        [], ["*"], ["api.example.com", "*"], ["."], [".com"], [".co.uk"], ["*.example.com"],
        ["https://api.example.com"], ["api.example.com:443"], ["api example"], ["::1"],
    ],
    "TRUSTED_PROXIES": [
        ["0.0.0.0/0"], ["::/0"], ["10.0.0.1", "0.0.0.0/0"], ["0.0.0.0/1", "128.0.0.0/1"],
        ["8.0.0.0/8"], ["104.16.0.0/12"], ["2000::/3"], ["2001:db8::/27"], ["172.16.0.0/11"],
        ["::ffff:0:0/96"], ["::ffff:0.0.0.0/100"], ["64:ff9b::/96"], ["the balancer"], ["*"],
    ],
    "ADMIN_PATH": ["", " ", "/", ".", "..", "api", "API", "v1", "static", "app", "a/b", "a b"],
    "ADDITIONAL_TRUSTED_ORIGINS": [
        ["http://app.example.com"], ["https://app.example.com", "http://192.168.1.5:5173"],
        ["ftp://app.example.com"], ["https://*.example.com"], ["http://localhost.example.com"],
    ],
    "CSRF_TRUSTED_ORIGINS": [
        ["http://app.example.com"], ["https://*"], ["https://*.com"], ["https://*.co.uk"],
    ],
    "DATABASES": [{"default": {"PASSWORD": "change-me"}}],
}  # fmt: skip
FINE: dict[str, list[Any]] = {
    "SECRET_KEY": [GOOD["SECRET_KEY"], "2de86e4271fca8690dbaa1ec061fa709b97d5c4b0acab55988"],
    "LLM_ROUTER_MASTER_KEY": [
        GOOD["LLM_ROUTER_MASTER_KEY"], base64_of(b"e42f823f3e1a257bd6355a70b1bdac81"),
    ],
    "ALLOWED_HOSTS": [
        ["api.example.com", "127.0.0.1", "[::1]", "localhost"], [".example.com", ".example.co.uk"],
        ["API.Example.COM", "airi_server"],
    ],
    "TRUSTED_PROXIES": [
        [], ["10.0.3.7", "10.0.0.0/8", "172.16.0.0/12", "192.168.1.0/24", "100.64.0.0/10"],
        ["127.0.0.0/8", "::1", "fd00::/8", "203.0.113.9"], ["104.16.0.0/13", "2a06:98c0::/29"],
        ["::ffff:10.0.0.0/104"],
    ],
    "ADMIN_PATH": ["admin", "operators-7f3a", "admin.2"],
    "ADDITIONAL_TRUSTED_ORIGINS": [
        [], ["https://app.example.com:8443"], ["http://localhost:5173", "http://127.0.0.1:80"],
        ["http://app.localhost:3000", "http://[::1]:5173"], ["tauri://localhost"],
        ["chrome-extension://abcdefgh", "ai.moeru.airi-pocket://links"],
    ],
    "CSRF_TRUSTED_ORIGINS": [["https://*.example.com", "https://console.example.com"]],
    "DATABASES": [{"default": {"PASSWORD": "9f2b7c"}}, {"default": {"PASSWORD": ""}}],
}  # fmt: skip


def pairs(values):
    return [(name, each) for name, several in values.items() for each in several]


class TestFaults:
    @pytest.mark.parametrize(("name", "value"), pairs(BAD))
    def test_names_the_variable_and_what_to_do(self, name, value):
        (fault, *_) = hardening.faults({name: value})

        assert fault.variable == name.replace("DATABASES", "DATABASE_URL")
        assert fault.remedy
        assert str(fault).count("\n") == 0

    @pytest.mark.parametrize(("name", "value"), pairs(FINE))
    def test_finds_none_in_what_is_strong(self, name, value):
        assert hardening.faults({name: value}) == []

    def test_is_about_every_setting_that_has_a_rule(self):
        assert BAD.keys() == FINE.keys() == hardening.RULES.keys()

    @pytest.mark.parametrize("name", ["SECRET_KEY", "LLM_ROUTER_MASTER_KEY", "DATABASES"])
    def test_never_says_a_secret(self, name):
        for value in BAD[name]:
            secret = value["default"]["PASSWORD"] if name == "DATABASES" else value
            said = "\n".join(map(str, hardening.faults({name: value})))

            assert len(secret) < 9 or secret not in said

    def test_finds_one_secret_for_two_purposes(self):
        both = dict.fromkeys(("SECRET_KEY", "LLM_ROUTER_MASTER_KEY"), GOOD["LLM_ROUTER_MASTER_KEY"])

        assert [each.variable for each in hardening.faults(both)][-1] == "SECRET_KEY"

    def test_of_what_generators_make_are_none_in_a_thousand(self):
        for _ in range(1_000):
            assert hardening.faults({"SECRET_KEY": secrets.token_urlsafe(48)}) == []
            master_key = base64_of(secrets.token_bytes(32))
            assert hardening.faults({"LLM_ROUTER_MASTER_KEY": master_key}) == []


def test_insisting_says_everything_at_once():
    with pytest.raises(ImproperlyConfigured) as refused:
        hardening.insist({"SECRET_KEY": "x", "ALLOWED_HOSTS": ["*"], "TRUSTED_PROXIES": ["::/0"]})

    said = str(refused.value).splitlines()
    assert [line.split()[0] for line in said] == ["SECRET_KEY", "ALLOWED_HOSTS", "TRUSTED_PROXIES"]


def boot(settings: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Import settings in a process of its own, with nothing else of ours in its environment."""
    return subprocess.run(
        [sys.executable, "-c", f"import airi_server.settings.{settings}"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **GOOD, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


class TestBooting:
    def test_production_starts_with_what_is_strong(self):
        started = boot("production")

        assert (started.returncode, started.stderr) == (0, "")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("SECRET_KEY", "change-me-" * 6),
            ("LLM_ROUTER_MASTER_KEY", base64_of(bytes(range(32)))),
            ("ALLOWED_HOSTS", "*"),
            ("ALLOWED_HOSTS", ""),
            ("TRUSTED_PROXIES", "10.0.0.1, 0.0.0.0/0"),
            ("ADMIN_PATH", ""),
            ("ADMIN_PATH", "/"),
            ("ADMIN_PATH", " "),
            ("ADDITIONAL_TRUSTED_ORIGINS", "http://app.example.com"),
            ("CSRF_TRUSTED_ORIGINS", "https://*"),
            ("DATABASE_URL", "postgresql://airi:change-me@127.0.0.1:5432/airi"),
        ],
    )
    def test_production_refuses_what_is_not(self, name, value):
        refused = boot("production", **{name: value})

        assert refused.returncode == 1
        last = refused.stderr.splitlines()[-1]
        assert last.partition(": ")[2].startswith(f"{name} "), last
        if name in ("SECRET_KEY", "LLM_ROUTER_MASTER_KEY"):
            assert value not in refused.stderr

    def test_development_takes_any_secret_and_host(self):
        started = boot("dev", SECRET_KEY="x", LLM_ROUTER_MASTER_KEY=base64_of(bytes(32)))

        assert (started.returncode, started.stderr) == (0, "")

    def test_no_settings_make_every_page_the_consoles(self):
        assert "ADMIN_PATH is empty" in boot("dev", ADMIN_PATH="").stderr


@pytest.mark.parametrize(("name", "values"), BAD.items())
def test_check_deploy_says_it_with_an_id(monkeypatch, name, values):
    settings = SimpleNamespace(**{setting: good[0] for setting, good in FINE.items()})
    monkeypatch.setattr(checks, "settings", settings)
    assert checks.settings_are_hardened(None) == []

    setattr(settings, name, values[0])

    (found,) = checks.settings_are_hardened(None)
    variable = name.replace("DATABASES", "DATABASE_URL")
    assert found.id == checks.FAULT_IDS[variable]
    assert found.msg.startswith(f"{variable} ")
    assert found.hint

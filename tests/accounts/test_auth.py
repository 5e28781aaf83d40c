import asyncio

import pytest
from django.test import RequestFactory, override_settings
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from accounts import auth
from accounts.auth import Memory, address_of, authenticate, authenticate_sync
from accounts.models import APIKey
from airi_server.kernel import database
from airi_server.kernel.errors import Forbidden, Unauthorized
from airi_server.kernel.threads import in_thread
from tests.factories import accounts as make

HOME = "192.0.2.1"


async def call(token, address):
    return await authenticate(f"Bearer {token}", address=address)


@pytest.mark.django_db(transaction=True)
@pytest.mark.asyncio
class TestAddresses:
    async def test_are_asked_on_every_call(self, hot_loop):
        _, token = await in_thread(make.api_key)(
            allowed_addresses=["192.0.2.0/24", "2001:db8::/32"]
        )

        await call(token, "192.0.2.9")
        await call(token, "::ffff:192.0.2.9")
        await call(token, "2001:db8::1")
        for stranger in ("198.51.100.1", "::1", "", "::ffff:198.51.100.1"):
            with pytest.raises(Forbidden):
                await call(token, stranger)

    async def test_a_list_nobody_can_read_allows_nobody(self, token, hot_loop):
        await in_thread(APIKey.objects.update)(allowed_addresses=["spoilt"])

        with pytest.raises(Forbidden):
            await call(token, HOME)

    async def test_the_database_being_away_is_no_refusal(self, token, hot_loop, monkeypatch):
        async def away(*_args):
            raise database.AWAY[0]

        monkeypatch.setattr(database, "fetch", away)

        with pytest.raises(database.AWAY):
            await authenticate(f"Bearer {token}", address=HOME)


def refuses(header):
    """Whether both ways refuse the header, and nothing else happens."""
    try:
        authenticate_sync(header, address=HOME, at=make.NOW)
    except Unauthorized:
        pass
    else:
        return False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth.CREDENTIALS, "current", Memory)
        try:
            asyncio.run(authenticate(header, address=HOME))
        except Unauthorized:
            return True
    return False


KEY = "sk-airi-" + "a" * 52


class TestHeader:
    @pytest.mark.parametrize(
        "header",
        [
            None,
            "",
            " ",
            "Bearer",
            "Bearer ",
            "Bearer  " + KEY[:-1],
            f"Basic {KEY}",
            f"Bearer\t{KEY}",
            f" Bearer {KEY}",
            f"Bearer {KEY},Bearer {KEY}",
            f"Bearer {KEY} {KEY}",
            "Bearer \x00",
            "Bearer sk-airi-\x00" + "a" * 51,
            "Bearer ключ",
            "Bearer \ud800",
            "Bearer " + "a" * 1_000_000,
            "Bearer " * 100,
            "bearer ' OR 1=1 --",
            "Bearer %(public_id)s",
        ],
    )
    def test_what_is_no_key_is_refused(self, header):
        assert refuses(header)

    @given(st.one_of(st.text(max_size=200), st.text(max_size=80).map("Bearer ".__add__)))
    @hypothesis_settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    def test_any_text_is_refused(self, header):
        assert refuses(header)

    def test_a_long_one_is_not_even_hashed(self, monkeypatch):
        monkeypatch.setattr(auth, "sha256", None)

        assert refuses("Bearer " + "a" * 1_000_000)

    @pytest.mark.django_db
    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
    def test_the_scheme_may_be_written_in_any_case(self, scheme):
        key, token = make.api_key()

        principal = authenticate_sync(f"{scheme} {token}", address=HOME, at=make.NOW)

        assert principal.api_key_id == key.public_id

    @pytest.mark.django_db
    def test_two_spaces_are_one_too_many(self):
        _, token = make.api_key()

        assert refuses(f"Bearer  {token}")


class TestAddressOf:
    @pytest.mark.parametrize(
        ("trusted", "expected"), [([], "10.0.0.1"), (["10.0.0.0/8"], "203.0.113.9")]
    )
    def test_believes_forwarding_headers_of_our_proxies(self, trusted, expected):
        request = RequestFactory().get(
            "/", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR="192.0.2.66, 203.0.113.9"
        )

        with override_settings(TRUSTED_PROXIES=trusted):
            assert address_of(request) == expected

    @pytest.mark.django_db
    def test_a_forged_header_does_not_open_an_allow_list(self):
        _, token = make.api_key(allowed_addresses=["192.0.2.66"])
        request = RequestFactory().get(
            "/",
            REMOTE_ADDR="203.0.113.9",
            HTTP_X_FORWARDED_FOR="192.0.2.66",
            HTTP_AUTHORIZATION=f"Bearer {token}",
        )

        with override_settings(TRUSTED_PROXIES=["10.0.0.0/8"]), pytest.raises(Forbidden):
            auth.KeyAuth()(request)


@pytest.mark.django_db(transaction=True)
@pytest.mark.asyncio
class TestNinjaCallables:
    async def test_the_hot_ones_agree(self, token, hot_loop):
        request = RequestFactory().get("/", HTTP_AUTHORIZATION=f"Bearer {token}")

        assert await auth.HotKeyAuth()(request) is await auth.bearer(request)

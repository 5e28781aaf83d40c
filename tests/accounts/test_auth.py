import asyncio
from datetime import timedelta

import pytest
from django.test import RequestFactory, override_settings
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from accounts import auth
from accounts.auth import Memory, address_of, authenticate, authenticate_sync
from accounts.models import APIKey, User
from airi_server.kernel import database
from airi_server.kernel.errors import Forbidden, Unauthorized
from airi_server.kernel.threads import in_thread
from tests.accounts.test_credentials import wrong_secret
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

    async def test_the_database_being_away_is_no_refusal(self, database_line, token, hot_loop):
        database_line.cut()

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
            f"Bearer\t{KEY[:-1]}",
            f" Bearer {KEY[:-1]}",
            f"Bearer{KEY}",
            f"Bearer Bearer {KEY}",
            f'Bearer "{KEY}',
            f"Bearer \"{KEY}'",
            f"Bearer \"'{KEY}'\"",
            'Bearer "',
            'Bearer ""',
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
    @pytest.mark.parametrize(
        "pasted",
        ["Bearer  {}", "Bearer\t{}", "Bearer {} ", " bearer {}", 'Bearer "{}"', "Bearer '{}'",
         "Bearer `{}`", 'BEARER  " {} "\t'],
    )  # fmt: skip
    def test_blanks_and_quotes_around_a_key_are_not_part_of_it(self, pasted):
        key, token = make.api_key()

        plain = authenticate_sync(pasted.format(token), address=HOME, at=make.NOW)

        assert plain.api_key_id == key.public_id
        with pytest.raises(Unauthorized):
            authenticate_sync(pasted.format(wrong_secret(token)), address=HOME, at=make.NOW)


def said_of(header):
    """Return what both ways say of a header, which is the same."""
    with pytest.raises(Unauthorized) as plain:
        authenticate_sync(header, address=HOME, at=make.NOW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth.CREDENTIALS, "current", Memory)
        with pytest.raises(Unauthorized) as hot:
            asyncio.run(authenticate(header, address=HOME))
    assert plain.value.message == hot.value.message
    return plain.value.message


class TestWhatIsSaid:
    @pytest.mark.parametrize(
        ("header", "said"),
        [
            (None, "There is no Authorization header."),
            ("  ", "There is no Authorization header."),
            (f"Basic {KEY}", "The Authorization header does not begin with 'Bearer'."),
            (KEY, "The Authorization header does not begin with 'Bearer'."),
            ("Bearer ", "There is no key behind 'Bearer'."),
            (f"Bearer Bearer {KEY}", "The Authorization header has 'Bearer' twice."),
            ("Bearer sk-proj-abc123", "This is a key of another provider."),
            ("Bearer 'sk-ant-api03-abc'", "This is a key of another provider."),
            ("Bearer eyJhbGciOi.eyJzdWIi.c2ln", "This is no API key of this server."),
            ("Bearer ключ", "The key has characters that no key has."),
            ("Bearer " + "a" * 5_000, "The Authorization header is too long."),
        ],
    )
    def test_names_what_is_wrong_and_what_is_expected(self, header, said):
        assert said_of(header) == f"{said} {auth.EXPECTED}"

    @pytest.mark.parametrize("token", [KEY[:-1], KEY + "a", KEY[:-1] + "!", "sk-airi-nobody"])
    def test_of_a_key_of_ours_that_is_not_whole_says_what_one_looks_like(self, token):
        assert said_of(f"Bearer {token}") == (
            "This API key is not whole, or was changed: "
            "one is 'sk-airi-' and 52 letters and digits."
        )

    @pytest.mark.django_db
    @pytest.mark.parametrize("fate", ["unknown", "secret", "disabled", "expired", "banned"])
    def test_of_a_key_in_our_form_is_the_same_whatever_became_of_it(self, fate):
        key, token = make.api_key()
        later = make.NOW + timedelta(hours=1)
        changes = {"disabled": {"disabled_at": later}, "expired": {"expires_at": later}}
        APIKey.objects.filter(pk=key.pk).update(**changes.get(fate, {"name": "x"}))
        if fate == "banned":
            User.objects.filter(pk=key.user_id).update(banned=True)
        given = {"unknown": KEY, "secret": wrong_secret(token)}.get(fate, token)

        with pytest.raises(Unauthorized) as refused:
            authenticate_sync(f"Bearer {given}", address=HOME, at=later)

        assert refused.value.message == auth.INVALID

    def test_repeats_nothing_of_a_key(self):
        for token in ("sk-proj-canary4711", "sk-airi-canary4711", "canary4711", "ü-canary4711"):
            assert "canary" not in said_of(f"Bearer {token}")


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
class TestPasted:
    async def test_a_key_is_recalled_like_any_other(self, token, hot_loop):
        first = await call(token, HOME)
        before = database.round_trips

        for pasted in (f" {token}", f'"{token}"', f"'{token} '"):
            assert await call(pasted, HOME) is first

        assert database.round_trips == before

    async def test_a_key_that_comes_first_is_known_by_its_own_name(self, token, hot_loop):
        first = await call(f'"{token}"', HOME)
        before = database.round_trips

        assert await call(token, HOME) is first
        assert database.round_trips == before


@pytest.mark.django_db(transaction=True)
@pytest.mark.asyncio
class TestNinjaCallables:
    async def test_the_hot_ones_agree(self, token, hot_loop):
        request = RequestFactory().get("/", HTTP_AUTHORIZATION=f"Bearer {token}")

        assert await auth.HotKeyAuth()(request) is await auth.bearer(request)

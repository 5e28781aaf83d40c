from datetime import timedelta

import pytest

from accounts import devices, users
from accounts.models import User
from tests.factories import accounts as make

pytestmark = pytest.mark.django_db
LATER = make.NOW + timedelta(days=30)


@pytest.fixture
def ria():
    return make.user(password="correct horse")


@pytest.fixture
def cookie(ria):
    return devices.remember(ria, cookie="", at=make.NOW)


def again(user):
    """Return the user as the next login reads them."""
    return User.objects.get(pk=user.pk)


def known(user, cookie, at=LATER):
    return devices.known(again(user), cookie=cookie, at=at)


class TestKnown:
    def test_is_the_device_of_an_earlier_login_for_a_year(self, ria, cookie):
        almost = make.NOW + timedelta(days=364)

        assert known(ria, cookie) == known(ria, cookie, almost) is not None
        assert known(ria, cookie, almost + timedelta(days=1)) is None

    def test_is_not_that_of_somebody_else(self, cookie):
        """Whoever registers has a cookie, and it helps with nobody's account but their own."""
        assert known(make.user(password="correct horse"), cookie) is None
        assert devices.known(User(), cookie=cookie, at=LATER) is None

    @pytest.mark.parametrize(
        "forge",
        [
            lambda _: "",
            lambda _: "~",
            lambda _: "x" * 5_000,
            lambda _: "é\x00\n~;",
            lambda good: good[:-1] + ("A" if good[-1] != "A" else "B"),
            lambda good: ("A" if good[0] != "A" else "B") + good[1:],
            lambda good: good.partition(":")[0],
            lambda good: good.partition(":")[0] + ":" + "A" * 43,
            lambda good: good.replace(".", ".9"),
            lambda good: good + " ",
            lambda good: good.upper(),
            lambda good: good + "~" + "y" * 1_000,
        ],
    )
    def test_is_not_what_was_forged(self, ria, cookie, forge):
        assert known(ria, forge(cookie)) is None

    @pytest.mark.parametrize(
        "keep_out",
        [
            lambda pk: users.set_password(user_id=pk, password="another horse", at=make.NOW),
            lambda pk: users.set_password(user_id=pk, password="correct horse", at=make.NOW),
            lambda pk: users.ban(user_id=pk, reason="", until=LATER, at=make.NOW),
            lambda pk: users.change(user_id=pk, is_active=False, at=make.NOW),
        ],
    )
    def test_ends_with_the_password_and_when_the_user_is_kept_out(self, ria, cookie, keep_out):
        keep_out(ria.pk)
        assert known(ria, cookie, make.NOW) is None

        users.unban(user_id=ria.pk, at=LATER)
        users.change(user_id=ria.pk, is_active=True, at=LATER)

        assert known(ria, cookie) is None
        assert known(ria, devices.remember(again(ria), cookie=cookie, at=LATER))

    def test_ends_with_a_password_that_a_command_of_djangos_sets(self, ria, cookie):
        ria.set_password("another horse")
        ria.save()

        assert known(ria, cookie) is None

    def test_is_not_one_while_the_user_is_kept_out_by_whatever_means(self, ria, cookie):
        User.objects.filter(pk=ria.pk).update(is_active=False)

        assert known(ria, cookie) is None

    def test_outlasts_what_keeps_nobody_out(self, ria, cookie):
        users.change(user_id=ria.pk, email="new@example.com", name="R", at=make.NOW)

        assert known(ria, cookie)


class TestRemember:
    def test_keeps_the_name_and_counts_the_year_anew(self, ria, cookie):
        renewed = devices.remember(ria, cookie=cookie, at=LATER)

        assert known(ria, renewed) == known(ria, cookie)
        assert known(ria, renewed, make.NOW + timedelta(days=380))

    def test_gives_every_device_another_name(self, ria, cookie):
        assert known(ria, devices.remember(ria, cookie="", at=make.NOW)) != known(ria, cookie)

    def test_keeps_the_last_five_accounts_of_a_browser(self):
        people = [make.user() for _ in range(7)]
        cookie = ""
        for person in people:
            cookie = devices.remember(person, cookie=cookie, at=make.NOW)

        assert [bool(known(person, cookie)) for person in people] == [False] * 2 + [True] * 5
        assert len(cookie) < devices.MAX_LENGTH

    def test_says_nothing_about_whose_it_is(self, ria, cookie):
        assert ria.pk not in cookie
        assert ria.email not in cookie

    def test_passes_on_nothing_that_is_not_of_its_own_shape(self, ria):
        cookie = devices.remember(ria, cookie="a;b~\r\nc~" + "d" * 80, at=make.NOW)

        assert devices.ENTRY.fullmatch(cookie)

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st

from accounts import addresses


def allows(address, text):
    network = addresses.parse_network(text)
    assert network is not None
    return addresses.is_listed(address, [network])


class TestAllowList:
    @pytest.mark.parametrize(
        ("address", "network", "expected"),
        [
            ("10.1.2.3", "10.0.0.0/8", True),
            ("10.1.2.3", "10.1.2.3", True),
            ("11.1.2.3", "10.0.0.0/8", False),
            ("::ffff:10.1.2.3", "10.0.0.0/8", True),
            ("10.1.2.3", "::ffff:10.0.0.0/104", True),
            ("::ffff:11.1.2.3", "10.0.0.0/8", False),
            ("2001:db8::5", "2001:db8::/32", True),
            ("2001:db9::5", "2001:db8::/32", False),
            ("10.1.2.3", "::/0", False),
            ("2001:db8::5", "0.0.0.0/0", False),
            ("fe80::1%eth0", "fe80::/10", True),
            ("", "0.0.0.0/0", False),
            ("testclient", "0.0.0.0/0", False),
            ("10.1.2.3/8", "10.0.0.0/8", False),
        ],
    )
    def test_knows_who_is_on_it(self, address, network, expected):
        assert allows(address, network) is expected

    def test_drops_host_bits(self):
        assert str(addresses.parse_network("10.1.2.3/8")) == "10.0.0.0/8"

    @pytest.mark.parametrize("text", ["", "x", "10.0.0.0/33", "10.0.0.1-5", "127.1", "1" * 99, "1"])
    def test_what_is_no_network_is_none(self, text):
        assert addresses.parse_network(text) is None

    @given(st.text(max_size=80))
    def test_any_text_is_read_or_refused(self, text):
        assert isinstance(addresses.parse_network(text), IPv4Network | IPv6Network | None)
        assert isinstance(addresses.parse_address(text), IPv4Address | IPv6Address | None)


class TestCallerOf:
    @pytest.mark.parametrize(
        ("address", "expected"),
        [
            ("203.0.113.9", "203.0.113.9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("64:ff9b::203.0.113.9", "203.0.113.9"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::", "2001:db8:1:2::/64"),
            ("2001:DB8:1:2:FFFF:FFFF:FFFF:FFFF", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("::1", "::/64"),
            ("", ""),
            ("testclient", "testclient"),
        ],
    )
    def test_is_an_ipv4_address_or_the_64_of_an_ipv6_one(self, address, expected):
        assert addresses.caller_of(address) == expected

    @given(st.text(max_size=80))
    def test_of_any_text_is_something(self, text):
        assert isinstance(addresses.caller_of(text), str)


class TestClientOf:
    @pytest.fixture(autouse=True)
    def _proxies(self, settings):
        settings.TRUSTED_PROXIES = ["10.0.0.0/8", "fd00::/8"]

    @pytest.mark.parametrize(
        ("peer", "forwarded", "expected"),
        [
            ("203.0.113.9", "", "203.0.113.9"),
            ("203.0.113.9", "10.0.0.1", "203.0.113.9"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
            ("10.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),
            ("10.0.0.1", "1.1.1.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
            ("10.0.0.1", "127.0.0.1,10.9.9.9,203.0.113.9,10.0.0.2", "203.0.113.9"),
            ("10.0.0.1", "203.0.113.9, garbage", "10.0.0.1"),
            ("10.0.0.1", "garbage, 10.0.0.2", "10.0.0.2"),
            ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
            ("fd00::1", "[2001:db8::5]:4711", "2001:db8::5"),
            ("fd00::1", "[2001:db8::5]", "2001:db8::5"),
            ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
            ("10.0.0.1", "203.0.113.9," + "10.0.0.2," * 100 + "10.0.0.2", "10.0.0.2"),
            ("", "203.0.113.9", ""),
        ],
    )
    def test_believes_only_our_proxies(self, peer, forwarded, expected):
        assert addresses.client_of(peer=peer, forwarded=forwarded) == expected

    def test_without_proxies_nobody_is_believed(self, settings):
        settings.TRUSTED_PROXIES = []

        assert addresses.client_of(peer="10.0.0.1", forwarded="1.1.1.1") == "10.0.0.1"

    def test_a_list_that_cannot_be_read_stops_the_boot(self, settings):
        settings.TRUSTED_PROXIES = ["10.0.0.0/8", "the balancer"]

        with pytest.raises(ImproperlyConfigured, match="the balancer"):
            addresses.trusted_proxies()

    @given(st.text(max_size=200))
    def test_any_header_leads_to_an_address(self, forwarded):
        named = addresses.client_of(peer="10.0.0.1", forwarded=forwarded)

        assert addresses.parse_address(named) is not None

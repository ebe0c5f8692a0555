import pytest

from duologue.edges.telephone._sip_address import (
    InviteSeen,
    Sources,
    called_number,
    header_address,
    host_of,
    parse_address,
    read_invite,
    refer_target,
    target_address,
)
from duologue.errors import ConfigError

TRACE = (
    "RX UDP 198.51.100.7:5060 -> 192.0.2.1:5060\nINVITE sip:1@192.0.2.1 SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r\nCall-ID: abc@host\r\nCSeq: 1 INVITE\r\n\r\n"
)


def test_an_address_has_a_user_a_host_and_perhaps_a_port():
    address = parse_address("address", "sip:bot@pbx.example.org:5061")
    assert (address.user, address.domain) == ("bot", "pbx.example.org:5061")
    assert str(address) == "sip:bot@pbx.example.org:5061"
    for wrong in ("bot@host", "sip:host", "sip:bot@host:99999", "sip:bot@ho st", "sip:b@h;x=1", 5):
        with pytest.raises(ConfigError, match="address must be"):
            parse_address("address", wrong)


def test_a_target_is_a_number_or_an_address():
    assert target_address("to", "+15551234", "trunk:5080") == "sip:+15551234@trunk:5080"
    assert target_address("to", "*21#", "pbx") == "sip:*21%23@pbx"
    assert target_address("to", "sip:a@b;transport=tcp", "pbx") == "sip:a@b;transport=tcp"
    for wrong in ("", "ann", "sip:a@b\r\nRoute: <sip:c>", "sip:a@b?Replaces=1", "1 2"):
        with pytest.raises(ConfigError, match="to must be"):
            target_address("to", wrong, "pbx")


def test_numbers_are_read_from_addresses_and_headers():
    assert called_number("sip:+1555@trunk;user=phone") == "+1555"
    assert called_number("sip:ann@example.org;x=1") == "sip:ann@example.org"
    assert header_address('"Ann" <sip:ann@example.org>;tag=1') == "sip:ann@example.org"
    assert header_address("sip:ann@example.org;tag=1") == "sip:ann@example.org"


def test_a_proxy_has_a_host_in_every_form():
    for proxy in ("sbc.example.org", "sbc.example.org:5061", "sip:sbc.example.org:5061;lr"):
        assert host_of(proxy) == "sbc.example.org"
    assert host_of("[2001:db8::1]:5060") == "2001:db8::1"


def test_a_request_is_read_with_the_address_that_it_came_from():
    assert read_invite(TRACE) == InviteSeen("abc@host", "198.51.100.7")
    short = TRACE.replace("Call-ID:", "i :").replace("198.51.100.7", "[2001:db8::1]")
    assert read_invite(short) == InviteSeen("abc@host", "2001:db8::1")
    for other in (
        TRACE.replace("RX", "TX"),
        TRACE.replace("INVITE sip", "BYE sip"),
        TRACE.replace("Call-ID", "X-Call"),
        "RX UDP 1.2.3.4:1 -> 5.6.7.8:2 (9000 bytes, too large to trace)",
        "",
    ):
        assert read_invite(other) is None


def test_a_transfer_has_one_target_or_none():
    sales = "sip:sales@pbx.example.org"
    for header in (
        sales,
        f"<{sales}>",
        f"<{sales}?Replaces=a%40b%3Bto-tag%3D1>",
        f"<{sales}?Replaces=a%40b&Require=replaces>;method=INVITE",
        f"{sales};method=invite",
    ):
        assert refer_target(header) == sales
    assert refer_target(f"<{sales};transport=tcp>") == f"{sales};transport=tcp"
    for header in (
        f"<{sales}>;method=BYE",
        f"<{sales}>, <sip:premium@example.net>",
        f'"{sales}" <sip:premium@example.net>',
        f"{sales} <sip:premium@example.net>",
        f"<{sales}>;x=<sip:premium@example.net>",
        f"<{sales}?Route=%3Csip:premium@example.net%3E>",
        "<tel:+15551234>",
        "",
    ):
        assert refer_target(header) == ""


def test_the_body_of_a_request_cannot_stand_for_its_head():
    inner = TRACE.replace("Call-ID: abc@host\r\n", "") + "Call-ID: forged@host\r\n"
    assert read_invite(inner) is None


def test_sources_are_addresses_and_networks():
    sources = Sources(["192.0.2.7", "198.51.100.0/24", "2001:db8::/32"])
    assert sources.allow("192.0.2.7")
    assert sources.allow("::ffff:198.51.100.9")
    assert sources.allow("2001:db8::5")
    assert not sources.allow("192.0.2.8")
    assert not sources.allow("")
    with pytest.raises(ConfigError, match="allow must have"):
        Sources(["trunk"])

"""The outgoing policy: which addresses a provider may be reached at, whatever they are called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_router.core.catalog import Network
from quota_router.core.networks import judge, judge_url, read_permit

PUBLIC, PRIVATE, LOOPBACK = Network.PUBLIC, Network.PRIVATE, Network.LOOPBACK
NOWHERE = frozenset()
EVERYTHING = ("0.0.0.0/0:443", "[::/0]:443")
"""The widest `allow` that can be written."""


def words(text):
    return text.split()


WORLD = words("1.1.1.1 93.184.215.14 100.128.0.1 172.32.0.1 192.167.255.255 223.255.255.255 11.0.0.1")
WORLD_V6 = words("2606:4700::1111 2001:4860:4860::8888 2a00:1450::1 2001:200::1 ::ffff:1.1.1.1")
HOME = words("10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 100.127.255.255")
HOME_V6 = words("fc00::1 fd12:3456::1 ::ffff:10.0.0.1 ::ffff:c0a8:101")
SELF = words("127.0.0.1 127.255.255.254 127.1.2.3 ::1 0:0:0:0:0:0:0:1 ::ffff:127.0.0.1 ::ffff:7f00:1")
SPECIAL = words("192.0.0.8 192.88.99.1 198.18.0.1 198.19.255.255 2001:20::1 100::1 ::7f00:1 ::ffff:0:7f00:1 5f00::1")
NEVER = words("""
169.254.169.254 169.254.0.1 169.254.170.2 fe80::1 febf::1 fe80::1%eth0 ::ffff:169.254.169.254 ::ffff:a9fe:a9fe
fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:42::42 100.100.100.200 168.63.129.16 192.0.0.192 ::ffff:168.63.129.16
0.0.0.0 0.1.2.3 :: ::ffff:0.0.0.0 224.0.0.1 239.255.255.255 ff02::1 240.0.0.1 255.255.255.255
192.0.2.1 198.51.100.1 203.0.113.1 2001:db8::1 3fff::1 64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1::1 2001::1 2001:0:7f00:1:: fec0::1
""")
SPELLINGS = [
    *words("0x7f000001 2130706433 017700000001 127.1 127.0.1 0177.0.0.1 0x7f.0.0.1 127.0.0.01 ①②⑦.0.0.1 127.0.0.1. 127.0.0.1:443"),
    *words("[::1] localhost metadata.google.internal ::ffff:127.0.0.1. 1.1.1.256"),
    " 127.0.0.1",
    "",
]


def is_reached(address, network, allow=(), own=NOWHERE):
    return judge(address, 443, network, allow, own) is None


@pytest.mark.parametrize(
    ("addresses", "reached_from"),
    [
        (WORLD + WORLD_V6, {PUBLIC, PRIVATE}),
        (HOME + HOME_V6, {PRIVATE}),
        (SELF, {LOOPBACK}),
        (SPECIAL, set()),
        (NEVER, set()),
        (SPELLINGS, set()),
    ],
    ids=["world", "private", "loopback", "special", "never", "spellings"],
)
@pytest.mark.parametrize("network", Network)
def test_each_class_of_address_is_reached_from_its_policies_alone(addresses, reached_from, network):
    assert [address for address in addresses if is_reached(address, network) != (network in reached_from)] == []


@pytest.mark.parametrize("network", Network)
def test_allow_reaches_everything_but_the_never_list(network):
    reached = WORLD + WORLD_V6 + HOME + HOME_V6 + SELF + SPECIAL
    assert [address for address in reached if not is_reached(address, network, EVERYTHING)] == []
    assert [address for address in NEVER + SPELLINGS if is_reached(address, network, EVERYTHING)] == []


def test_allow_names_one_port():
    assert judge("10.1.2.3", 8000, PUBLIC, ("10.1.2.3:8000",), NOWHERE) is None
    assert judge("10.1.2.3", 8001, PUBLIC, ("10.1.2.3:8000",), NOWHERE) is not None
    assert judge("10.1.2.4", 8000, PUBLIC, ("10.1.2.3:8000",), NOWHERE) is not None
    assert judge("10.1.2.200", 443, PUBLIC, ("10.9.9.9:1", "10.1.2.0/24:443"), NOWHERE) is None
    assert judge("fd00::7", 8000, PUBLIC, ("[fd00::/64]:8000",), NOWHERE) is None


def test_a_mapped_address_is_permitted_as_what_it_reaches():
    assert judge("::ffff:127.0.0.1", 11434, PRIVATE, ("127.0.0.1:11434",), NOWHERE) is None


@pytest.mark.parametrize("network", Network)
@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1"])
def test_our_own_listen_address_is_refused_whatever_is_allowed(address, network):
    """
    A call that is sent to ourselves would come back, and hold again, without end.
    """
    own = frozenset({("127.0.0.1", 443), ("::1", 4141)})
    assert "our own listen address" in judge(address, 443, network, EVERYTHING, own)
    assert judge("::1", 443, LOOPBACK, (), own) is None


@given(st.ip_addresses(), st.sampled_from(Network))
def test_no_policy_reaches_what_is_not_unicast(ip, network):
    is_special = ip.is_multicast or ip.is_link_local or ip.is_unspecified or str(ip).startswith("fec")
    if is_special:
        assert judge(str(ip), 443, network, EVERYTHING, NOWHERE) is not None


@given(st.ip_addresses(v=4), st.sampled_from(Network), st.sampled_from([(), EVERYTHING]))
def test_a_mapped_address_is_judged_like_the_address_it_reaches(ip, network, allow):
    assert is_reached(f"::ffff:{ip}", network, allow) == is_reached(str(ip), network, allow)


BAD_PERMITS = [
    *words(": 10.1.2.3 10.1.2.3: 10.1.2.3:0 10.1.2.3:65536 10.1.2.3:http 10.1.2.3:-1 10.1.2.3:٣ 10.1.2.3/24:443"),
    *words("::1:8000 [127.0.0.1]:80 [::1] [::1 ollama.lan:11434 *:443 0x7f000001:80"),
    "",
    " 10.1.2.3:80",
    "1" * 200 + ":80",
]


@pytest.mark.parametrize("text", BAD_PERMITS)
def test_an_allow_entry_that_cannot_be_read_is_refused_with_a_sentence(text):
    with pytest.raises(ValueError, match="cannot be read: write an address or a network and a port"):
        read_permit(text)


def test_an_unreadable_entry_permits_nothing_and_says_so():
    """
    A typing error in `allow` closes the door; it never opens it, nor leaves half of it open.
    """
    reason = judge("10.1.2.3", 8000, PRIVATE, ("10.1.2.3:8000", "ollama.lan:11434"), NOWHERE)
    assert "ollama.lan:11434" in reason
    assert "ollama.lan:11434" in judge_url("http://10.1.2.3:8000", PUBLIC, ("ollama.lan:11434",))


@pytest.mark.parametrize(
    ("url", "network", "is_asked"),
    [
        ("https://api.example.com/v1", PUBLIC, True),
        ("https://api.example.com/v1?q=%22&odd=|{}", PUBLIC, True),
        ("https://[2606:4700::1]:8443/v1", PUBLIC, True),
        ("http://api.example.com/v1", PUBLIC, False),
        ("HTTP://api.example.com/v1", PUBLIC, False),
        ("http://10.0.0.1:8000", PUBLIC, False),
        ("http://10.0.0.1:8000", PRIVATE, True),
        ("http://127.0.0.1:11434/v1", LOOPBACK, True),
        ("ftp://api.example.com", PUBLIC, False),
        ("file:///etc/passwd", LOOPBACK, False),
        ("api.example.com/v1", PUBLIC, False),
        ("https://", PUBLIC, False),
        ("https://:443/v1", PUBLIC, False),
        ("https://user:word@api.example.com", PUBLIC, False),
        ("https://api.example.com/v1#part", PUBLIC, False),
        ("https://api.example.com\\@127.0.0.1/", PUBLIC, False),
        ("https://api.example.com\t/v1", PUBLIC, False),
        ("https://api.example.com/v1\r\nx: y", PUBLIC, False),
        ("https://①②⑦.0.0.1/", PUBLIC, False),
        ("https://api.example.com:word/v1", PUBLIC, False),
        ("https://api.example.com:99999/v1", PUBLIC, False),
        ("https://[::1/v1", PUBLIC, False),
    ],
)
def test_a_url_is_judged_before_its_host_is_resolved(url, network, is_asked):
    reason = judge_url(url, network)
    assert (reason is None) == is_asked
    assert reason is None or "word" not in reason, "a reason never quotes the URL"


def test_an_address_that_is_allowed_may_be_asked_over_http():
    allow = ("10.1.2.3:8000", "10.9.9.9:80")
    assert judge_url("http://10.1.2.3:8000/v1", PUBLIC, allow) is None
    assert judge_url("http://10.9.9.9/v1", PUBLIC, allow) is None
    assert judge_url("http://10.1.2.3:8001/v1", PUBLIC, allow) is not None
    assert judge_url("http://api.example.com:8000/v1", PUBLIC, allow) is not None

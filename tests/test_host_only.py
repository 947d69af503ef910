"""Commands, routers and networks beyond the world's are set in the file on the host alone."""

import pytest

from quota_router.config import parse_catalog
from quota_router.core.desired import build_catalog
from quota_router.core.host_only import take_sent
from quota_router.errors import Forbidden

PUBLIC = '[providers.p]\nvendor = "openai"\n'
LOCAL = '[providers.p]\nvendor = "ollama"\n'
LAN = '[providers.p]\nfamily = "openai"\nbase_url = "http://10.0.0.1/v1"\nnetwork = "private"\ncredential = "none"\n'
ALLOW = '[providers.p]\nvendor = "openai"\nallow = ["10.0.0.1:80"]\n'
COMMAND = '[providers.p]\ncommand_template = ["claude", "{prompt_file}"]\n'
ENV = COMMAND + "env = { A = '1' }\n"
POLLER = '[[providers.p.pollers]]\nname = "q"\nurl = "http://127.0.0.1:1/q"\nused = "/u"\nunit = "usd"\nwindow = "x"\n'
ROUTERS = '[routing]\nrouters = ["a:b"]\n'


def catalog(text):
    return build_catalog(parse_catalog(text, "f"))


@pytest.mark.parametrize(
    ("wanted", "present", "networks"),
    [
        (PUBLIC, "", ()),
        (PUBLIC, LOCAL, ()),
        ("", LOCAL, ()),
        (LOCAL, LOCAL, ()),
        (LOCAL + 'display_name = "x"\n', LOCAL, ()),
        (COMMAND, COMMAND, ()),
        (COMMAND + 'display_name = "x"\n', COMMAND, ()),
        ("", COMMAND, ()),
        (LOCAL, "", ("loopback",)),
        (LAN, "", ("private",)),
        (ALLOW, "", ("private", "loopback")),
        (ROUTERS, ROUTERS, ()),
    ],
)
def test_what_stood_there_or_is_permitted_may_be_sent(wanted, present, networks):
    assert take_sent(catalog(wanted), catalog(present), networks).providers == catalog(wanted).providers


def test_text_that_is_silent_about_routers_leaves_them_as_they_are():
    assert take_sent(catalog(""), catalog(ROUTERS), ()).routers == ("a:b",)


@pytest.mark.parametrize(
    ("wanted", "present", "networks"),
    [
        (LOCAL, "", ()),
        (LOCAL, PUBLIC, ()),
        (LOCAL, "", ("private",)),
        (LOCAL + 'base_url = "http://127.0.0.1:9/v1"\n', LOCAL, ()),
        (LOCAL + POLLER, LOCAL, ()),
        (LAN, "", ("loopback",)),
        (ALLOW, "", ()),
        (ALLOW, PUBLIC, ("private",)),
        (COMMAND, "", ("private", "loopback")),
        (ENV, COMMAND, ()),
        (COMMAND.replace("claude", "sh"), COMMAND, ()),
        (COMMAND + 'credential = "env:OTHER"\n', COMMAND, ()),
        (ROUTERS, "", ("private", "loopback")),
        (ROUTERS.replace("a:b", "c:d"), ROUTERS, ()),
    ],
)
def test_what_is_new_there_is_refused(wanted, present, networks):
    with pytest.raises(Forbidden, match="file on the host"):
        take_sent(catalog(wanted), catalog(present), networks)

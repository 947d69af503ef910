"""Our own token never reaches a vendor."""

import aiohttp
from daemon_kit import AUTH, TOKEN, open_here, provider_toml

from quota_router.simulator import Simulator

MODEL = '[[models]]\nname = "m"\nattachments = ["one"]\nmax_output_tokens = 100\n'


async def test_a_vendors_variable_that_holds_our_own_token_is_no_credential(tmp_path):
    """
    `eval "$(quota-router env)"` and then `serve` in the same shell: OPENAI_API_KEY is ours then.
    """
    async with Simulator() as sim, open_here(tmp_path, provider_toml("one", sim.openai_base_url) + MODEL, KEY_ONE=TOKEN) as daemon:
        asked = {"model": "m", "messages": [], "max_tokens": 5}
        url = f"{daemon.url}/v1/chat/completions"
        async with aiohttp.ClientSession() as http, http.post(url, json=asked, headers=AUTH) as answer:
            told = await answer.json()
        assert answer.status == 503
        assert told["error"]["rungs"][0]["reason"] == "no_credential"
        assert sim.requests == []

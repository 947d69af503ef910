"""
What is known of each vendor before the operator says anything: a preset.

Law: pure data; each fact names its source in the docstring of `Vendor`.
Never: decides anything. A provider may override every field but its vendor's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from quota_router.core.catalog import Family, Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """
    One vendor's preset.

    Sources, read 2026-11-20: base URLs and key variables from the vendors' API references and official SDKs; local ports from
    the documentation of Ollama, LM Studio, vLLM and llama.cpp's server; price list names from genai-prices 0.2.3;
    `abort_stops_billing` from OpenRouter's list of providers that stop billing when a stream is aborted (its streaming page).
    Read 2026-11-25: gemini from ai.google.dev/gemini-api/docs/openai; azure's variable from OpenAI's SDK 3.52 and its /openai/v1
    path, which takes the key as a bearer token, from Microsoft's Foundry pages; bedrock from its guide on chat completions, whose
    recommended second endpoint is bedrock-mantle.REGION.api.aws/v1; minimax from platform.minimax.io (in China api.minimaxi.com);
    siliconflow from docs.siliconflow.com (in China api.siliconflow.cn); cohere from its compatibility API; perplexity from its
    SDK's pages. No variable of LiteLLM's proxy is sure, so that it has no preset.
    """

    name: str
    family: Family
    base_url: str | None
    """what the vendor's SDK takes, without a trailing slash; `None`: each operator has his own"""
    key_env: str | None
    """the variable that the vendor's SDK reads its key from; `None`: keyless"""
    network: Network
    prices_id: str | None
    """the vendor's name in genai-prices; `None`: not listed"""
    abort_stops_billing: bool
    """False also where nobody has said: then the answer is drained, which costs time and no money"""
    base_url_example: str = ""
    """where each operator has his own: how it looks"""


def _openai(name: str, base_url: str, key_env: str, prices_id: str | None, *, abort_stops_billing: bool = False) -> Vendor:
    return Vendor(
        name=name,
        family=Family.OPENAI,
        base_url=base_url,
        key_env=key_env,
        network=Network.PUBLIC,
        prices_id=prices_id,
        abort_stops_billing=abort_stops_billing,
    )


def _own(name: str, example: str, key_env: str, prices_id: str) -> Vendor:
    """A cloud that speaks openai at an address of the operator's own."""
    return Vendor(
        name=name,
        family=Family.OPENAI,
        base_url=None,
        key_env=key_env,
        network=Network.PUBLIC,
        prices_id=prices_id,
        abort_stops_billing=False,
        base_url_example=example,
    )


def _local(name: str, port: int) -> Vendor:
    return Vendor(
        name=name,
        family=Family.OPENAI,
        base_url=f"http://127.0.0.1:{port}/v1",
        key_env=None,
        network=Network.LOOPBACK,
        prices_id=None,
        abort_stops_billing=True,
    )


_PRESETS = (
    Vendor(
        name="anthropic",
        family=Family.ANTHROPIC,
        base_url="https://api.anthropic.com",
        key_env="ANTHROPIC_API_KEY",
        network=Network.PUBLIC,
        prices_id="anthropic",
        abort_stops_billing=True,
    ),
    _openai("openai", "https://api.openai.com/v1", "OPENAI_API_KEY", "openai", abort_stops_billing=True),
    # Whether an abort stops billing depends on whom OpenRouter chose, which is not known in time.
    _openai("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "openrouter"),
    _openai("xai", "https://api.x.ai/v1", "XAI_API_KEY", "x-ai", abort_stops_billing=True),
    _openai("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", "deepseek", abort_stops_billing=True),
    _openai("mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY", "mistral"),
    _openai("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", "groq"),
    _openai("together", "https://api.together.xyz/v1", "TOGETHER_API_KEY", "together", abort_stops_billing=True),
    _openai("fireworks", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", "fireworks", abort_stops_billing=True),
    _openai("cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", "cerebras"),
    _openai("moonshot", "https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", "moonshotai"),
    _openai("zai", "https://api.z.ai/api/paas/v4", "ZAI_API_KEY", "zai"),
    _openai("gemini", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY", "google"),
    _openai("minimax", "https://api.minimax.io/v1", "MINIMAX_API_KEY", "minimax"),
    _openai("siliconflow", "https://api.siliconflow.com/v1", "SILICONFLOW_API_KEY", None),
    _openai("cohere", "https://api.cohere.ai/compatibility/v1", "CO_API_KEY", "cohere"),
    _openai("perplexity", "https://api.perplexity.ai", "PERPLEXITY_API_KEY", "perplexity"),
    _own("azure", "https://RESOURCE.openai.azure.com/openai/v1", "AZURE_OPENAI_API_KEY", "azure"),
    _own("bedrock", "https://bedrock-runtime.REGION.amazonaws.com/openai/v1", "AWS_BEARER_TOKEN_BEDROCK", "aws"),
    _local("ollama", 11434),
    _local("lmstudio", 1234),
    _local("vllm", 8000),
    _local("llamacpp", 8080),
)

VENDORS: Mapping[str, Vendor] = MappingProxyType({vendor.name: vendor for vendor in _PRESETS})
"""By name, as `vendor = "…"` in the file says it."""

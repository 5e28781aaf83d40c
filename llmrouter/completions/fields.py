"""The allow-list of request fields: what a caller may send to an upstream, by exact name. Pure.

Dialects grow fields that lift our bound on an answer, multiply its work, run the caller's templates
or change a price. So what is not known to be harmless is left out and named to the caller.
"""

from __future__ import annotations

from typing import Any, Final

OURS: Final = frozenset(
    {"model", "stream", "stream_options", "max_tokens", "max_completion_tokens"}
)
"""Written by `Order.body_for`, whatever the caller said."""
OPENAI: Final = frozenset(
    {
        "messages", "temperature", "top_p", "stop", "seed", "presence_penalty",
        "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "n", "response_format",
        "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call",
        "reasoning_effort", "verbosity", "user", "safety_identifier", "prompt_cache_key",
        "modalities",
    }
)  # fmt: skip
HARMLESS: Final = frozenset(
    {
        "top_k", "min_p", "top_a", "typical_p", "repetition_penalty", "repeat_penalty",
        "repeat_last_n", "length_penalty", "dry_multiplier", "dry_base", "dry_allowed_length",
        "dry_penalty_last_n", "dry_sequence_breakers", "xtc_probability", "xtc_threshold",
        "dynatemp_range", "dynatemp_exponent", "mirostat", "mirostat_mode", "mirostat_tau",
        "mirostat_eta", "top_n_sigma", "samplers", "stop_token_ids", "bad_words",
        "allowed_token_ids", "include_stop_str_in_output", "skip_special_tokens", "min_tokens",
        "ignore_eos", "truncate_prompt_tokens", "guided_json", "guided_regex", "guided_choice",
        "guided_grammar", "guided_decoding_backend", "guided_whitespace_pattern",
        "structured_outputs", "grammar", "json_schema", "regex", "ebnf", "chat_template_kwargs",
        "add_generation_prompt", "continue_final_message", "reasoning", "include_reasoning",
        "reasoning_format", "separate_reasoning", "thinking", "enable_thinking", "think",
        "thinking_budget", "thinking_token_budget", "cache_prompt", "random_seed", "safe_prompt",
        "usage", "session_id", "documents",
    }
)  # fmt: skip
"""What vLLM, llama.cpp, SGLang, Mistral, OpenRouter and others take that costs nobody anything."""
OPERATORS: Final = frozenset(
    {
        "service_tier", "store", "metadata", "web_search_options", "audio", "prediction",
        "moderation", "prompt_cache_retention", "prompt_cache_options", "hosted_tools",
    }
)  # fmt: skip
"""OpenAI's too, but they change a price or keep a state: an upstream has to allow each by name."""
DANGEROUS: Final = frozenset(
    {
        "n_predict", "num_predict", "max_new_tokens", "max_output_tokens", "n_cmpl", "n_keep",
        "n_discard", "n_cache_reuse", "id_slot", "lora", "response_fields", "return_tokens",
        "return_progress", "return_token_ids", "return_tokens_as_token_ids",
        "return_hidden_states", "return_routed_experts", "use_beam_search", "best_of", "echo",
        "prompt_logprobs", "chat_template", "mm_processor_kwargs", "media_io_kwargs",
        "kv_transfer_params", "ec_transfer_params", "vllm_xargs", "priority", "custom_params",
        "session_params", "lora_path", "rid", "bootstrap_host", "bootstrap_port",
        "bootstrap_room", "options", "num_ctx", "keep_alive", "extra_body", "models", "route",
        "provider", "plugins", "preset", "transforms", "fallbacks", "api_base", "base_url",
        "api_key", "api_version",
    }
)  # fmt: skip
"""Never passed, whatever an upstream allows: they beat our length, multiply its work, reach into
its machine, or choose another route than the operator's."""
DANGEROUS_PREFIXES: Final = ("speculative.", "return_", "bootstrap_")
PASSED: Final = OPENAI | HARMLESS
_JUDGED: Final = frozenset({"top_logprobs", "modalities"})
"""Passed with some values only."""
_PLAIN: Final = PASSED - _JUDGED
LENGTHS: Final = ("n_predict", "num_predict", "max_new_tokens", "max_output_tokens")
"""Other dialects' names for the longest answer: read as ours if the caller gave none of ours."""
ANY: Final = "*"
HOSTED_TOOLS: Final = "hosted_tools"
MAX_LOGPROBS: Final = 20
_FUNCTION_TOOLS: Final = ("function", "custom")


def select(
    body: dict[str, Any], allowed: frozenset[str] = frozenset()
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what goes on of a body, without the fields that are ours, and the names left out.

    Args:
        body: The caller's.
        allowed: What the upstream allows beyond the list: names, or `*` for all but the dangerous.
    """
    kept: dict[str, Any] = {}
    dropped: list[str] = []
    for name, value in body.items():
        if name in _PLAIN:
            kept[name] = value
        elif name in OURS:
            continue
        elif (name in _JUDGED or _is_allowed(name, allowed)) and _is_fit(name, value, allowed):
            kept[name] = value
        else:
            dropped.append(name)
    if "tools" in kept:
        dropped += _without_hosted_tools(kept, allowed)
    return kept, tuple(dropped)


def _is_allowed(name: str, allowed: frozenset[str]) -> bool:
    if not allowed or is_dangerous(name):
        return False
    return name in allowed or ANY in allowed


def is_dangerous(name: str) -> bool:
    plain = name.casefold()
    if plain != name and (plain in DANGEROUS or plain in OURS or plain in PASSED):
        return True  # some servers read names without regard to case
    return plain in DANGEROUS or plain.startswith(DANGEROUS_PREFIXES)


def _is_fit(name: str, value: Any, allowed: frozenset[str]) -> bool:
    """Return whether a value is within what its field is passed for."""
    if name == "top_logprobs":
        return value is None or (type(value) is int and 0 <= value <= MAX_LOGPROBS)
    if name == "modalities":
        return value in (None, ["text"]) or _is_allowed(name, allowed)
    return True


def _without_hosted_tools(kept: dict[str, Any], allowed: frozenset[str]) -> list[str]:
    """Take out the tools that the provider itself runs and bills; return what they are called."""
    tools = kept["tools"]
    if _is_allowed(HOSTED_TOOLS, allowed) or not isinstance(tools, list):
        return []
    own = [tool for tool in tools if _runs_at_the_caller(tool)]
    if len(own) == len(tools):
        return []
    hosted = [tool.get("type") for tool in tools if not _runs_at_the_caller(tool)]
    if own:
        kept["tools"] = own
    else:
        del kept["tools"]
        kept.pop("tool_choice", None)
    return [f"tools.{kind}"[:64] for kind in hosted if isinstance(kind, str)]


def _runs_at_the_caller(tool: Any) -> bool:
    return not isinstance(tool, dict) or tool.get("type", "function") in _FUNCTION_TOOLS

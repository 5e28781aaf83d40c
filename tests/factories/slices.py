"""Slices as an operator posts them; tests name what differs."""

from __future__ import annotations

CANARY = "sk-canary-93ab51"


def chat(name="chat-default", key=CANARY, **fields):
    return {
        "kind": "openrouter",
        "modelName": name,
        "overrideModel": "openai/gpt-4o-mini",
        **keyed(key),
        **fields,
    }


def azure(key=CANARY, **fields):
    given = {"modelName": "microsoft/v1", "region": "eastasia", **keyed(key)}
    return {"kind": "azure", **given, **fields}


def dashscope(key=CANARY, **fields):
    return {
        "kind": "dashscope-cosyvoice",
        "modelName": "alibaba/cosyvoice-v2",
        "region": "intl",
        "upstreamModel": "cosyvoice-v2",
        **keyed(key),
        **fields,
    }


def stepfun(key=CANARY, **fields):
    return {"kind": "stepfun", "modelName": "stepfun/v1", **keyed(key), **fields}


def unspeech(key=CANARY, *, streaming=True, **fields):
    socket = {"upstreamURL": "ws://unspeech:5933/stream", **keyed(key), **fields}
    given = {"kind": "unspeech", "restBaseURL": "http://unspeech:5933"}
    return {**given, **({"streaming": socket} if streaming else {})}


def keyed(key):
    """Return the field for a new key, or none where the key is to stay."""
    return {} if key is None else {"plaintextKey": key}


def one_of_each():
    """Return a slice of every kind, all with the same key."""
    return [
        chat(),
        chat("big", kind="openai-compatible"),
        chat("claude", kind="bedrock"),
        azure(),
        dashscope(),
        stepfun(),
        unspeech(),
    ]

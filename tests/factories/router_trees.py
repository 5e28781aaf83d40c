"""Any router configuration at all, for properties that hold for every one of them."""

from __future__ import annotations

import unicodedata
from typing import Any

from hypothesis import strategies as st

from llmrouter.configuration import spelling, tree
from tests.factories.llmrouter import sealed_key

names = st.text(st.characters(codec="utf-8", exclude_characters="|", min_codepoint=32), min_size=1)


def may_be_written(name: str) -> bool:
    try:
        return bool(spelling.model_name(name)) and len(name) <= 20
    except ValueError:
        return False


short_names = names.map(lambda name: unicodedata.normalize("NFC", name).strip()).filter(
    may_be_written
)
parameters = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.floats(-(2**50), 2**50),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
    ),
    max_size=3,
)


@st.composite
def keys_of(draw, model, base_url):
    ids = draw(st.lists(short_names, min_size=1, max_size=3, unique=True))
    return tuple(
        sealed_key(model=model, key_id=i, disabled=draw(st.booleans()), base_url=base_url)
        for i in ids
    )


@st.composite
def upstreams_of(draw, model, *, speech):
    base_url = draw(st.sampled_from(["http://127.0.0.1:1", "https://h.example/v1//"]))
    shared = {
        "base_url": base_url,
        "priority": draw(st.none() | st.integers(0, 9)),
        "weight": draw(st.integers(1, 9)),
        "keys": draw(keys_of(model, base_url)),
    }
    if speech:
        return tree.TTSUpstream(**shared, adapter_params=draw(parameters))
    return tree.LLMUpstream(
        **shared,
        override_model=draw(st.none() | short_names),
        timeout_ms=draw(st.none() | st.integers(1, 600_000)),
        header_template=draw(st.sampled_from(["Bearer {KEY}", "{KEY}", "Key: {KEY};"])),
    )


triggers = st.builds(
    tree.Triggers,
    http_codes=st.none() | st.lists(st.integers(300, 599), max_size=3).map(tuple),
    on_timeout=st.booleans(),
)


@st.composite
def trees(draw):
    sections: dict[str, dict[str, Any]] = {}
    for surface in (tree.LLM, tree.TTS):
        sections[surface] = {}
        for name in draw(st.lists(short_names, max_size=2, unique=True)):
            each = upstreams_of(name, speech=surface == tree.TTS)
            ups = tuple(draw(st.lists(each, min_size=1, max_size=3)))
            sections[surface][name] = (
                tree.TTSModel(provider="azure", upstreams=ups, fallback_triggers=draw(triggers))
                if surface == tree.TTS
                else tree.LLMModel(
                    upstreams=ups,
                    fallback_triggers=draw(triggers),
                    max_output_tokens=draw(st.integers(1, 10**7)),
                    tokenizer=draw(st.sampled_from(["", "o200k_base"])),
                )
            )
    defaults = tree.Defaults(
        per_attempt_timeout_ms=draw(st.integers(1, 600_000)),
        idle_timeout_ms=draw(st.none() | st.integers(1, 600_000)),
        fallback_http_codes=tuple(draw(st.lists(st.integers(300, 599), max_size=3))),
    )
    return tree.Tree(
        llm=tree.LLMSection(models=sections[tree.LLM]),
        tts=tree.TTSSection(models=sections[tree.TTS]),
        defaults=defaults,
    )

from __future__ import annotations

from llmrouter.configuration import routes, tree
from tests.factories.llmrouter import chat_model, chat_tree, sealed_key, upstream


def compiled(**models) -> routes.Table:
    return routes.compile(chat_tree(**models), 7)


def only_key(table: routes.Table, name="a") -> routes.Key:
    return table.llm[name].upstreams[0].keys[0]


class TestCompile:
    def test_fills_in_what_an_upstream_leaves_out(self):
        table = compiled(a=chat_model(upstream(base_url="https://h.example:8/v1//")))

        found = table.llm["a"].upstreams[0]
        assert found.url == "https://h.example:8/v1/chat/completions"
        assert found.base_url == "https://h.example:8/v1"
        assert (found.id, found.host, found.model) == ("h.example", "h.example", "a")
        assert (found.priority, found.weight, found.position) == (1, 1, 1)
        assert found.timeout_s is None

    def test_keeps_what_an_upstream_says(self):
        given = upstream(id="eu", override_model="gpt", timeout_ms=1500, priority=0, weight=3)
        found = compiled(a=chat_model(given)).llm["a"].upstreams[0]

        assert (found.id, found.model, found.timeout_s) == ("eu", "gpt", 1.5)
        assert (found.priority, found.weight) == (0, 3)

    def test_orders_by_priority_then_position(self):
        given = [upstream(id=str(n), priority=priority) for n, priority in enumerate((5, None, 1))]
        route = compiled(a=chat_model(*given)).llm["a"]

        assert [found.id for found in route.upstreams] == ["2", "1", "0"]
        assert [found.position for found in route.upstreams] == [3, 2, 1]
        assert not route.is_weighted

    def test_sees_where_the_order_is_drawn(self):
        route = compiled(a=chat_model(upstream(priority=1), upstream(priority=1))).llm["a"]

        assert route.is_weighted

    def test_names_upstreams_of_one_host_apart(self):
        given = [upstream(), upstream(), upstream(id="upstream.example-2"), upstream()]
        found = compiled(a=chat_model(*given)).llm["a"].upstreams

        names = ["upstream.example", "upstream.example-3", "upstream.example-2"]
        assert [each.id for each in found][:3] == names
        assert len({each.id for each in found}) == 4

    def test_leaves_out_disabled_keys_and_upstreams_without_any(self):
        off = sealed_key(key_id="off", disabled=True)
        given = [upstream(id="none", keys=[off]), upstream(id="one", keys=[off, sealed_key()])]
        found = compiled(a=chat_model(*given)).llm["a"].upstreams

        assert [(each.id, each.position) for each in found] == [("one", 2)]
        assert [key.id for key in found[0].keys] == ["k1"]

    def test_takes_the_trigger_codes_of_the_defaults_unless_given(self):
        given = tree.Tree(
            llm=tree.LLMSection(
                models={
                    "a": chat_model(),
                    "b": chat_model(fallback_triggers=tree.Triggers(http_codes=())),
                }
            ),
            defaults=tree.Defaults(fallback_http_codes=(500,)),
        )
        table = routes.compile(given, 1)

        assert table.llm["a"].trigger_codes == {500}
        assert table.llm["b"].trigger_codes == frozenset()

    def test_caps_the_default_number_of_tokens(self):
        assert compiled(a=chat_model(max_output_tokens=10)).llm["a"].default_output_tokens == 10

    def test_lists_names_and_timeouts(self):
        table = compiled(b=chat_model(), a=chat_model())

        assert (table.revision, table.available) == (7, ("a", "b"))
        assert (table.first_event_idle_s, table.idle_timeout_s) == (300, 60)
        assert (table.chain_timeout_s, table.answer_timeout_s) == (60, 600)

    def test_gives_each_upstream_the_smaller_limit_for_the_head_of_a_stream(self):
        own, other = (
            compiled(a=chat_model(upstream(timeout_ms=2_000), upstream())).llm["a"].upstreams
        )

        assert (own.head_s, own.timeout_s) == (2, 2)
        assert (other.head_s, other.timeout_s) == (30, None)

    def test_keeps_ciphertexts_out_of_reprs(self):
        table = compiled(a=chat_model())

        assert only_key(table).sealed not in repr(table)


class TestHealthId:
    def test_stays_through_other_changes(self):
        key = sealed_key()
        before = compiled(a=chat_model(upstream(keys=[key], id="u")))
        after = compiled(a=chat_model(upstream(keys=[key], id="u", weight=9)), b=chat_model())

        assert only_key(before).health_id == only_key(after).health_id

    def test_changes_with_the_key_its_place_and_its_text(self):
        key, rotated = sealed_key(), sealed_key()
        tables = [
            compiled(a=chat_model(upstream(keys=[key], id="u"))),
            compiled(a=chat_model(upstream(keys=[rotated], id="u"))),
            compiled(a=chat_model(upstream(keys=[key], id="v"))),
            compiled(a=chat_model(upstream(keys=[key.model_copy(update={"id": "k2"})], id="u"))),
        ]

        assert len({only_key(table).health_id for table in tables}) == len(tables)

"""What people said in a month, a million messages, for the database of `tests.perf.million`."""

from __future__ import annotations

from typing import Final

MESSAGES: Final = 1_000_000
CHATS: Final = 400_000
CHARACTERS: Final = 100_000
USERS: Final = 40_000
"""The first so many users are in chats."""
LONG: Final = "c1"
"""A chat with a third of all messages; the others share the rest."""
TABLES: Final = (
    "chat", "chat_member", "chat_message", '"character"', "character_i18n", "character_capability"
)  # fmt: skip
UNCHECKED: Final = """
DO $$
DECLARE
    claim record;
BEGIN
    FOR claim IN
        SELECT conrelid::regclass AS place, conname FROM pg_constraint
        JOIN pg_class c ON c.oid = conrelid
        WHERE contype IN ('c', 'f') AND relname ~ '^(chat|character)(_|$)'
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', claim.place, claim.conname);
    END LOOP;
END $$
"""
"""Takes the checks and keys away, which would be looked at a million times."""

# n is a chat's place in time, and says nothing about the order of the ids. user-1 is in every
# tenth chat, and owns every tenth character.
STATEMENTS: Final = (
    f"""
INSERT INTO chat (id, type, title, last_seq, created_by, created_at, updated_at, deleted_at)
SELECT 'c' || n, (ARRAY['private', 'bot', 'group', 'channel'])[1 + n % 4],
    CASE WHEN n % 3 = 0 THEN 'Trip ' || n END, 10, 'user-' || 1 + n * 7 % {USERS},
    now() - n * interval '1 minute', now(), CASE WHEN n % 50 = 0 THEN now() END
FROM generate_series(1, {CHATS}) AS n
""",
    f"""
INSERT INTO chat_member (id, chat_id, member_type, user_id, role, joined_at)
SELECT 'm' || n, 'c' || n, 'user', 'user-' || 1 + n * 7 % {USERS}, 'owner',
    now() - n * interval '1 minute' FROM generate_series(1, {CHATS}) AS n
UNION ALL
SELECT 'h' || n, 'c' || n, 'user', 'user-1', 'member', now() - n * interval '1 minute'
FROM generate_series(10, {CHATS}, 10) AS n WHERE 1 + n * 7 % {USERS} <> 1
""",
    f"""
INSERT INTO chat_message (id, chat_id, seq, sender_id, author_id, role, content, created_at,
    updated_at, deleted_at)
SELECT 'x' || n, CASE WHEN n % 3 = 0 THEN '{LONG}' ELSE 'c' || 2 + n % {CHATS - 1} END, n,
    CASE WHEN n % 2 = 0 THEN 'user-' || n % 7 END, 'user-' || n % 7,
    CASE WHEN n % 2 = 0 THEN 'user' ELSE 'assistant' END,
    CASE WHEN n % 20 = 0 THEN '' ELSE repeat('x', 200) END, now(), now(),
    CASE WHEN n % 20 = 0 THEN now() END
FROM generate_series(1, {MESSAGES}) AS n
""",
    f"""
INSERT INTO "character" (id, version, cover_url, character_id, creator_id, owner_id, price_credit,
    likes_count, bookmarks_count, interactions_count, forks_count, created_at, updated_at,
    deleted_at)
SELECT 'a' || n, '1', '', 'char-' || n, o, o, '0', 0, 0, 0, 0, now() - n * interval '1 minute',
    now(), CASE WHEN n % 50 = 0 THEN now() END
FROM (SELECT n, 'user-' || CASE WHEN n % 10 = 0 THEN 1 ELSE 1 + n * 7 % {USERS} END AS o
      FROM generate_series(1, {CHARACTERS}) AS n) AS c
""",
    f"""
INSERT INTO character_i18n (id, position, character_id, language, name, description, tags,
    created_at, updated_at)
SELECT 't' || n, 0, 'a' || n, 'en', CASE WHEN n % 2 = 0 THEN 'Airi' ELSE 'Name ' || n END, '',
    '{{}}', now() - n * interval '1 minute', now() FROM generate_series(1, {CHARACTERS}) AS n
""",
    f"""
INSERT INTO character_capability (id, position, character_id, type, sealed_config)
SELECT 'k' || n, 0, 'a' || n, 'llm', 'v2.0.0.0.0.0' FROM generate_series(1, {CHARACTERS}) AS n
""",
)

-- authenticate_key.sql: read what an API key stands for, and remember that it was used, by whom.
--
-- In:    public_id text; secret_hash bytea, the SHA-256 of the whole key that was presented;
--        at timestamptz, now
-- Out:   no row, or one in the order of `accounts.credentials.StoredKey`
-- Rule:  this only reads; `accounts.credentials.standing_of` decides. Who presents the whole key
--        touches it and its user, each at most once in 60 s, also while it is refused: its owner
--        wants to know.
-- Locks: the key's row, then the user's, FOR NO KEY UPDATE, skipped when somebody is changing
--        them: signing in never waits, and a use that goes unnoticed is noticed the next time.
-- Races: two touches at once: the second skips the row or finds it fresh.
-- Commit: need not wait for the disk. Safe to run twice.
-- Twin:  tests/accounts/test_credentials.py
WITH stale AS (
    SELECT id, user_id, set_config('synchronous_commit', 'off', true)
    FROM api_key
    WHERE public_id = %(public_id)s
      AND secret_hash = %(secret_hash)s
      AND (last_used_at IS NULL OR last_used_at <= %(at)s - interval '60 seconds')
    FOR NO KEY UPDATE SKIP LOCKED
), touched AS (
    UPDATE api_key SET last_used_at = %(at)s FROM stale WHERE api_key.id = stale.id
), unseen AS (
    SELECT u.id
    FROM "user" u JOIN stale ON stale.user_id = u.id
    WHERE u.last_seen_at IS NULL OR u.last_seen_at <= %(at)s - interval '60 seconds'
    FOR NO KEY UPDATE OF u SKIP LOCKED
), seen AS (
    UPDATE "user" SET last_seen_at = %(at)s FROM unseen WHERE "user".id = unseen.id
)
SELECT k.public_id, k.secret_hash, k.user_id, k.disabled_at, k.expires_at,
       u.is_active, u.banned, u.ban_expires_at,
       k.allowed_models, k.allowed_addresses,
       k.requests_per_minute, k.tokens_per_minute, k.parallel_requests,
       k.limit_day, k.limit_month, k.limit_total
FROM api_key k
JOIN "user" u ON u.id = k.user_id
WHERE k.public_id = %(public_id)s

-- read_standings.sql: read what some API keys stand for, without anybody presenting them.
--
-- In:    public_ids text[]
-- Out:   a row for each key that exists, in the order of `accounts.credentials.StoredKey`
-- Rule:  this only reads; `accounts.credentials.standing_of` decides
-- Locks: none
-- Twin:  tests/accounts/test_standings.py
SELECT k.public_id, k.secret_hash, k.user_id, k.disabled_at, k.expires_at,
       u.is_active, u.banned, u.ban_expires_at,
       k.allowed_models, k.allowed_addresses,
       k.requests_per_minute, k.tokens_per_minute, k.parallel_requests,
       k.limit_day, k.limit_month, k.limit_total
FROM api_key k
JOIN "user" u ON u.id = k.user_id
WHERE k.public_id = ANY (%(public_ids)s)

-- acquire_slot.lua: take one of a limited number of places, each leased until an instant.
--
-- KEYS[1]  sorted set of leases: member is a request id, score when it lapses (epoch seconds)
-- ARGV     now, lapses_at (epoch seconds), limit, member
-- Returns  1 if the place was taken, 0 if all are
-- Atomic   a lease whose process died lapses by itself; the set expires with its last lease
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
    return 0
end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[4])
redis.call('EXPIREAT', KEYS[1], math.ceil(tonumber(ARGV[2])))
return 1

-- keep_standing.lua: keep how a circuit breaker stands, by the clock that all instances share.
--
-- KEYS[1]  hash: scope and sort of failure -> "since until facts", the instants in epoch milliseconds
-- ARGV     field, rest_ms, since_ms (both counted from now), facts, revision
-- Returns  nothing of use
-- Rule     a success deletes the field: while it is there nobody has succeeded, so that the earliest
--          `since` told of one revision is when it began to fail, whoever tells it first
-- Atomic   yes; the hash goes a day after the last of its breakers was written
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local since = now - ARGV[3]
local before = redis.call('HGET', KEYS[1], ARGV[1])
if before then
    local began, facts = string.match(before, '^(%d+) %d+ (.*)$')
    local is_read, told = pcall(cjson.decode, facts or '')
    if is_read and type(told) == 'table' and told.revision == tonumber(ARGV[5]) then
        since = math.min(since, tonumber(began))
    end
end
local kept = string.format('%.0f %.0f %s', since, now + ARGV[2], ARGV[4])
redis.call('HSET', KEYS[1], ARGV[1], kept)
redis.call('EXPIRE', KEYS[1], 86400)
return 1

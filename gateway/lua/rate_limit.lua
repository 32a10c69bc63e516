#!lua
-- Counts one request against a limit, as a leaky bucket (GCRA): a burst, and then one an interval. In the soft store.
-- KEYS 1 the key of whoever is counted, for whatever is counted
-- ARGV 1 burst, 2 interval in µs, 3 µs since the request before after which one is never refused, or 0
-- Demands nothing.
-- Returns {1 if it may go on, µs until the next one may if not, how many are left, µs until all are}
local burst, interval, apart = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local kept = redis.call('HMGET', KEYS[1], 'full', 'last')
-- From `full` on nothing is used up.
local full, last = math.max(tonumber(kept[1]) or 0, now), tonumber(kept[2])
local room = full + interval - now <= burst * interval
local calm = apart > 0 and last and now - last >= apart
local allowed = room or calm
if allowed then full = math.min(full + interval, now + burst * interval) end
redis.call('HSET', KEYS[1], 'full', full, 'last', now)
redis.call('PEXPIRE', KEYS[1], math.max(1000, math.ceil((full - now) / 1000)))
local wait = allowed and 0 or full + interval - now - burst * interval
if apart > 0 then wait = math.min(wait, apart) end
return {allowed and 1 or 0, wait, math.floor((now + burst * interval - full) / interval), full - now}

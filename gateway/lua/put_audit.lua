#!lua flags=allow-oom
-- Records what somebody is about to do, in the logs of those it concerns. The oldest records make room, a bounded
-- number at a time. allow-oom: a full store must not keep an operator from mending it, and the logs are bounded.
-- KEYS 1 prefix of the keys that belong to no partition
-- ARGV 1 record, 2 what it says as JSON, 3 at most how many a log keeps, 4 for how long in µs, then tenants
-- Demands nothing: a record that is there stays as it is.
-- Returns 1
-- include: audit
local member, most, life = ARGV[1] .. ' ' .. ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local TRIM = 200
for at = 5, #ARGV do
  local records = key('audit', ARGV[at])
  redis.call('ZADD', records, 'NX', now, member)
  local over = math.max(redis.call('ZCARD', records) - most, redis.call('ZCOUNT', records, '-inf', now - life))
  if over > 0 then redis.call('ZREMRANGEBYRANK', records, 0, math.min(over, TRIM) - 1) end
  redis.call('PEXPIRE', records, math.ceil(life / 1000))
end
return 1

#!lua flags=no-writes,allow-oom
-- A tenant's replays of this partition, newest first.
-- KEYS 1 partition prefix
-- ARGV 1 tenant, 2 at most how many
-- Returns {replay, its hash} for each
-- include: replaying
local found = {}
for _, id in ipairs(redis.call('ZREVRANGE', key('replays', ARGV[1]), 0, ARGV[2] - 1)) do
  local hash = redis.call('HGETALL', key('rp', id))
  if #hash > 0 then found[#found + 1] = {id, hash} end
end
return found

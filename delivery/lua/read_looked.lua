#!lua flags=no-writes,allow-oom
-- How many dead letters replays have looked at in this partition.
-- KEYS 1 partition prefix
-- ARGV replays
-- Returns their number, all replays together
-- include: progress
local looked = 0
for _, id in ipairs(ARGV) do
  looked = looked + tonumber(redis.call('HGET', key('rp', id, 'part'), 'looked') or 0)
end
return looked

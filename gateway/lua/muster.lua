#!lua flags=allow-oom
-- Counts the threads of live worker processes, and strikes off those that were silent too long.
-- KEYS 1 prefix of the keys that belong to no partition
-- ARGV 1 silence in µs
-- Demands nothing.
-- Returns how many threads are live
-- include: delivery/base
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', key('workers'), '-inf', now - tonumber(ARGV[1]))) do
  redis.call('ZREM', key('workers'), gone)
  redis.call('HDEL', key('threads'), gone)
end
local threads = 0
for _, count in ipairs(redis.call('HVALS', key('threads'))) do threads = threads + tonumber(count) end
return threads

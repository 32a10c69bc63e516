#!lua flags=allow-oom
-- Counts the live worker processes, and strikes off those that were silent too long.
-- KEYS 1 prefix of the keys that belong to no partition
-- ARGV 1 silence in µs
-- Demands nothing.
-- Returns {process, its threads, ...}
-- include: delivery/base
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', key('workers'), '-inf', now - tonumber(ARGV[1]))) do
  redis.call('ZREM', key('workers'), gone)
  redis.call('HDEL', key('threads'), gone)
end
return redis.call('HGETALL', key('threads'))

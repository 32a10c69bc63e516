#!lua flags=allow-oom
-- A worker process says that it lives, and with how many threads.
-- KEYS 1 prefix of the keys that belong to no partition
-- ARGV 1 process, 2 threads (0: it leaves)
-- Demands nothing.
-- Returns the store's time
-- include: delivery/base
if ARGV[2] == '0' then
  redis.call('ZREM', key('workers'), ARGV[1])
  redis.call('HDEL', key('threads'), ARGV[1])
else
  redis.call('ZADD', key('workers'), now, ARGV[1])
  redis.call('HSET', key('threads'), ARGV[1], ARGV[2])
end
return now

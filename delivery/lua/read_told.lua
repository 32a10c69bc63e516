#!lua flags=no-writes,allow-oom
-- KEYS 1 partition prefix
-- ARGV 1 list, see `told`, 2 at most how many
-- Returns the oldest of what is to be told
-- include: base
return redis.call('LRANGE', key(ARGV[1]), 0, ARGV[2] - 1)

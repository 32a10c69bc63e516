#!lua flags=no-writes,allow-oom
-- KEYS 1 partition prefix
-- ARGV 1 replay
-- Returns its hash, empty when unknown
-- include: replaying
return redis.call('HGETALL', key('rp', ARGV[1]))

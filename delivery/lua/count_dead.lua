#!lua flags=no-writes,allow-oom
-- KEYS 1 partition prefix
-- ARGV 1 tenant
-- Returns how many dead letters the tenant has here
-- include: base
return redis.call('ZCARD', key('dead', ARGV[1]))

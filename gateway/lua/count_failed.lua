#!lua flags=no-writes,allow-oom
-- KEYS 1 partition prefix
-- ARGV 1 tenant
-- Returns how many failed jobs the tenant has here that were not run again
-- include: delivery/base
return redis.call('ZCARD', key('failed', ARGV[1]))

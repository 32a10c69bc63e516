#!lua flags=no-writes,allow-oom
-- KEYS 1 prefix of the keys that belong to no partition
-- ARGV 1 digest of the key
-- Returns its fields, none when there is no such key
-- include: delivery/base
return redis.call('HGETALL', key('apikey', ARGV[1]))

#!lua flags=no-writes,allow-oom
-- KEYS 1 prefix of the keys that belong to no partition
-- ARGV 1 identifier of an API key
-- Returns its fields, none when there is no such key
-- include: tenant
local digest = redis.call('HGET', key('apikeyids'), ARGV[1])
return digest and redis.call('HGETALL', key('apikey', digest)) or {}

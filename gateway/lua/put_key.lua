#!lua
-- Keeps an API key, and its tenant if that is new. Refused at the memory limit: no allow-oom.
-- KEYS 1 prefix of the keys that belong to no partition
-- ARGV 1 identifier, 2 digest of the key, 3 tenant, 4 made at in µs, then fields: name, value, ...
-- Demands nothing: the same digest is written over.
-- Returns 1
-- include: tenant
redis.call('HSET', key('apikey', ARGV[2]), unpack(ARGV, 5))
redis.call('HSET', key('apikeyids'), ARGV[1], ARGV[2])
redis.call('ZADD', key('apikeys'), ARGV[4], ARGV[1])
redis.call('ZADD', key('apikeys', ARGV[3]), ARGV[4], ARGV[1])
make_tenant(ARGV[3], '')
return 1

#!lua
-- Keeps an API key.
-- KEYS 1 prefix of the keys that belong to no partition
-- ARGV 1 digest of the key, then fields: name, value, ...
-- Demands nothing: the same digest is written over.
-- Returns 1
-- include: delivery/base
redis.call('HSET', key('apikey', ARGV[1]), unpack(ARGV, 2))
return 1

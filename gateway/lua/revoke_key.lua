#!lua flags=allow-oom
-- An API key -> nothing.
-- KEYS 1 prefix of the keys that belong to no partition
-- ARGV 1 identifier
-- Demands nothing: one that is gone stays gone.
-- Returns 1 if it was there
-- include: tenant
local id = ARGV[1]
local digest = redis.call('HGET', key('apikeyids'), id)
if not digest then return 0 end
local tenant = redis.call('HGET', key('apikey', digest), 'tenant')
redis.call('DEL', key('apikey', digest))
redis.call('HDEL', key('apikeyids'), id)
redis.call('ZREM', key('apikeys'), id)
if tenant then redis.call('ZREM', key('apikeys', tenant), id) end
return 1

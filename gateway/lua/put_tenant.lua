#!lua
-- Makes a tenant. Refused at the memory limit: no allow-oom.
-- KEYS 1 prefix of the keys that belong to no partition
-- ARGV 1 tenant, 2 what people call it
-- Demands nothing: one that exists stays as it is.
-- Returns {1 if made now else 0, its fields}
-- include: tenant
local made = make_tenant(ARGV[1], ARGV[2])
return {made, redis.call('HGETALL', key('tenant', ARGV[1]))}

#!lua flags=allow-oom
-- Gives an endpoint other secrets for a scheme.
-- KEYS 1 partition prefix
-- ARGV 1 endpoint, 2 scheme, 3 the sealed secrets that the new ones were made of, '' for none, 4 the new ones, sealed
-- Demands that nobody changed them since they were read. Replaced by these very ones is success.
-- Returns {1 done or 0 changed since, the endpoint as it is now}, or nil when unknown
-- include: describe
local id, field = ARGV[1], 'secret:' .. ARGV[2]
if redis.call('EXISTS', key('ep', id)) == 0 then return nil end
local kept = redis.call('HGET', key('ep', id), field) or ''
if kept == ARGV[4] then return {1, describe(id, GONE_MOST)} end
if kept ~= ARGV[3] then return {0, describe(id, GONE_MOST)} end
redis.call('HSET', key('ep', id), field, ARGV[4])
tell_mirrors(id)
return {1, describe(id, GONE_MOST)}

#!lua flags=no-writes,allow-oom
-- How many jobs are pending.
-- KEYS 1 partition prefix
-- ARGV tenants to count
-- Returns {pending of all tenants, for each tenant asked for: its own}
-- include: job
local own = {}
for at, tenant in ipairs(ARGV) do own[at] = redis.call('ZCARD', key('jobs', tenant, 'pending')) end
return {tonumber(redis.call('HGET', key('counts'), 'pending') or 0), own}

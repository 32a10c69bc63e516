#!lua flags=no-writes,allow-oom
-- How many jobs are pending, and how many bytes are kept outside the store.
-- KEYS 1 partition prefix
-- ARGV tenants to count
-- Returns {pending of all tenants, for each tenant asked for: its pending, for each: its bytes}
-- include: job
local own, kept = {}, {}
for at, tenant in ipairs(ARGV) do
  own[at] = redis.call('ZCARD', key('jobs', tenant, 'pending'))
  kept[at] = redis.call('HGET', key('space'), tenant) or '0'
end
return {tonumber(redis.call('HGET', key('counts'), 'pending') or 0), own, kept}

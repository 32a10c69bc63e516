#!lua flags=no-writes,allow-oom
-- Tenants, oldest first, from a place on.
-- KEYS 1 prefix of the keys that belong to no partition
-- ARGV 1 made at or after this instant (µs), 2 tenant to go on after at that instant or '', 3 at most how many
-- Returns {{tenant, its fields} for each, 1 if there are more}
-- include: tenant
local ids, more = page_after(key('tenants'), ARGV[1], ARGV[2], tonumber(ARGV[3]))
local found = {}
for _, id in ipairs(ids) do found[#found + 1] = {id, redis.call('HGETALL', key('tenant', id))} end
return {found, more}

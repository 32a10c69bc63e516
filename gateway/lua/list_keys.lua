#!lua flags=no-writes,allow-oom
-- API keys, oldest first, from a place on.
-- KEYS 1 prefix of the keys that belong to no partition
-- ARGV 1 tenant or '' for all, 2 made at or after this instant (µs), 3 key to go on after at that instant or '',
--      4 at most how many
-- Returns {their fields, 1 if there are more}
-- include: tenant
local index = ARGV[1] == '' and key('apikeys') or key('apikeys', ARGV[1])
local ids, more = page_after(index, ARGV[2], ARGV[3], tonumber(ARGV[4]))
local found = {}
for _, id in ipairs(ids) do
  found[#found + 1] = redis.call('HGETALL', key('apikey', redis.call('HGET', key('apikeyids'), id)))
end
return {found, more}

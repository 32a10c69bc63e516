#!lua flags=no-writes,allow-oom
-- KEYS 1 partition prefix
-- ARGV deliveries
-- Returns how each is to be signed; '' for the usual way
-- include: base
local found = {}
for _, id in ipairs(ARGV) do found[#found + 1] = redis.call('HGET', key('d', id), 'scheme') or '' end
return found

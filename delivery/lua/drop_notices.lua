#!lua flags=allow-oom
-- Notices of which deliveries were made.
-- KEYS 1 partition prefix
-- ARGV notices, as they were read
-- Demands nothing: those that are gone are gone.
-- Returns how many there were
-- include: base
local dropped = 0
for _, told in ipairs(ARGV) do dropped = dropped + redis.call('LREM', key('operator:notices'), 1, told) end
return dropped

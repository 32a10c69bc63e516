#!lua flags=allow-oom
-- What was told.
-- KEYS 1 partition prefix
-- ARGV 1 list, see `told`, then what was read of it
-- Demands nothing: what is gone is gone.
-- Returns how many there were
-- include: base
local dropped = 0
for at = 2, #ARGV do dropped = dropped + redis.call('LREM', key(ARGV[1]), 1, ARGV[at]) end
return dropped

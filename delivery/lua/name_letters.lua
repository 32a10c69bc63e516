#!lua flags=allow-oom
-- Notes what a replay that is about to be made is asked for by name.
-- KEYS 1 partition prefix
-- ARGV 1 replay, then identifiers of this partition
-- Demands nothing; the same ones again change nothing.
-- include: progress
local ids = key('rp', ARGV[1], 'ids')
for at = 2, #ARGV do redis.call('ZADD', ids, 0, ARGV[at]) end
redis.call('PEXPIRE', ids, PART_LIFE)
return 1

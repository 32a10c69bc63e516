#!lua flags=allow-oom
-- cancelled or stopped -> running, from where it was; its brake begins to count anew.
-- KEYS 1 partition prefix
-- ARGV 1 replay, 2 a token of the wish
-- Demands `cancelled` or `stopped`. The same token again changes nothing.
-- Returns 1 it runs, 0 it cannot: it is completed, nil unknown
-- include: replaying
local id = ARGV[1]
local r = redis.call('HMGET', key('rp', id), 'state', 'kind', 'asked')
if not r[1] then return nil end
if r[3] == ARGV[2] or r[1] == 'running' then return 1 end
if r[1] ~= 'cancelled' and r[1] ~= 'stopped' then return 0 end
redis.call('HSET', key('rp', id), 'state', 'running', 'updatedAt', now, 'asked', ARGV[2])
redis.call('HDEL', key('rp', id), 'reason', 'baseAttempted', 'baseFailed', 'holder')
redis.call('PERSIST', key('rp', id))
redis.call('ZADD', key('replaying', r[2]), now, id)
wake_replays(r[2])
return 1

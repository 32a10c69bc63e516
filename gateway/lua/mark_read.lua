#!lua flags=allow-oom
-- Notes that a job's results were read: nobody need be told that they are about to go.
-- KEYS 1 partition prefix
-- ARGV 1 job
-- Demands a job that ended.
-- Returns 1 noted now, 0 it was before, or there is no such job
-- include: job
local id = ARGV[1]
if redis.call('HEXISTS', key('j', id), 'completedAt') == 0 then return 0 end
redis.call('ZREM', key('notices'), id)
return redis.call('HSETNX', key('j', id), 'readAt', now)

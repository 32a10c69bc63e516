#!lua flags=allow-oom
-- processing -> pending, to be attempted again at a later instant.
-- KEYS 1 partition prefix
-- ARGV 1 job, 2 claim, 3 delay in µs, 4 attempt's record as JSON
-- Demands `processing` under this claim, and no cancelling asked for.
-- Returns 1 done, 2 cancelling was asked for: end it instead, 0 the claim is lost
-- include: job
local id, claim, delay = ARGV[1], ARGV[2], tonumber(ARGV[3])
local job = redis.call('HMGET', key('j', id), 'status', 'claim', 'released', 'cancelRequested', 'attempt', 'tenant')
if job[3] == claim then return 1 end
if job[1] ~= 'processing' or job[2] ~= claim then return 0 end
if job[4] == '1' then return 2 end
redis.call('ZREM', key('leases'), id)
redis.call('ZADD', key('later'), now + delay, id)
-- An attempt that ended in order clears its process of what earlier ones died of.
redis.call('HDEL', key('j', id), 'claim', 'lost')
attempt_failed(id, job[5], ARGV[4])
move(id, job[6], 'processing', 'pending', 'released', claim, 'nextRunAt', now + delay)
wake_relay()
return 1

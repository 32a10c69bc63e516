#!lua flags=allow-oom
-- processing -> pending, at once: its worker stops, and the attempt does not count.
-- KEYS 1 partition prefix
-- ARGV 1 job, 2 claim, 3 attempt's record as JSON
-- Demands `processing` under this claim, and no cancelling asked for.
-- Returns 1 done, 2 cancelling was asked for: end it instead, 0 the claim is lost
-- include: job
local id, claim = ARGV[1], ARGV[2]
local job = redis.call('HMGET', key('j', id), 'status', 'claim', 'released', 'attempt', 'tenant', 'priority',
  'cancelRequested')
if job[3] == claim then return 1 end
if job[1] ~= 'processing' or job[2] ~= claim then return 0 end
if job[7] == '1' then return 2 end
redis.call('ZREM', key('leases'), id)
redis.call('HDEL', key('j', id), 'claim')
attempt_failed(id, job[4], ARGV[3])
move(id, job[5], 'processing', 'pending', 'released', claim, 'attempt', tonumber(job[4]) - 1)
outbox_push(id, job[5], job[6], now)
wake_relay()
return 1

#!lua flags=allow-oom
-- pending -> processing, under a claim: the fencing token that every later write of this attempt carries.
-- KEYS 1 partition prefix
-- ARGV 1 job, 2 claim (<process>:<random>), 3 lease in µs, 4 1 if the process may take a suspect
-- Demands `pending` and not waiting for a later instant; of a suspect, that it may be taken. Already held under
-- this very claim is success.
-- Returns the job's view, or nil: not ours to work on
-- include: job
local id, claim, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local SUSPECT_AFTER = 2
local job = redis.call('HMGET', key('j', id), 'status', 'claim', 'tenant', 'priority', 'attempt', 'lost')
if job[1] == 'processing' and job[2] == claim then
  -- Its holder counts the lease from the request that is answered.
  redis.call('ZADD', key('leases'), 'XX', now + lease, id)
  return job_view(id)
end
if job[1] ~= 'pending' or redis.call('ZSCORE', key('later'), id) then return nil end
if ARGV[4] ~= '1' and (tonumber(job[6]) or 0) >= SUSPECT_AFTER then
  -- Its place is taken for now: it is told of again soon, not after the long wait of one nobody answers to.
  redis.call('HDEL', key('j', id), 'rings')
  redis.call('ZADD', key('rung'), 'XX', 'LT', now + 1000000, id)
  return nil
end
outbox_remove(id, job[3], job[4])
redis.call('ZREM', key('deadlines'), id)
redis.call('ZADD', key('leases'), now + lease, id)
redis.call('HDEL', key('j', id), 'rings', 'came', 'nextRunAt', 'message')
redis.call('HSETNX', key('j', id), 'startedAt', now)
move(id, job[3], 'pending', 'processing', 'claim', claim, 'attempt', (tonumber(job[5]) or 0) + 1, 'progress', 0,
  'attemptAt', now)
-- A place in the relay's window came free.
if outbox_waits() then wake_relay() end
return job_view(id)

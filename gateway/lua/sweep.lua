#!lua flags=allow-oom
-- Finds the jobs that time has run out for: leases that lapsed, waits that took too long.
-- KEYS 1 partition prefix
-- ARGV 1 lease in µs, 2 at most how many of each kind, then the worker processes that live
-- Demands `processing` with a lapsed lease: with attempts left it is pending again, at once; else it is for the
-- caller to end, under the claim it is held by. Demands `pending` past its deadline: for the caller to end.
-- Returns {now, how many came back, {job, reason to end it, view} for each that must be ended}
-- include: job
-- include: delivery/quiet
local lease, at_most = tonumber(ARGV[1]), tonumber(ARGV[2])
local POISON_AFTER = 5
local live = {}
for at = 3, #ARGV do live[ARGV[at]] = true end
local back, ended = 0, {}

local function to_end(id, reason)
  ended[#ended + 1] = {id, reason, job_view(id)}
end

-- Only a lease that took its process with it counts against the job.
local function count_lost(id, claim)
  if live[string.match(claim, '^[^:]+')] then return 0 end
  return redis.call('HINCRBY', key('j', id), 'lost', 1)
end

local function reap(id)
  local job = redis.call('HMGET', key('j', id), 'status', 'attempt', 'maxAttempts', 'tenant', 'priority',
    'cancelRequested', 'claim')
  if job[1] ~= 'processing' then
    redis.call('ZREM', key('leases'), id)
    return
  end
  local reason
  -- Seen once for each lapse: what must be ended stays held, and is offered again until somebody ends it.
  if redis.call('HGET', key('j', id), 'reaped') ~= job[7] then
    redis.call('HSET', key('j', id), 'reaped', job[7])
    redis.call('HINCRBY', key('stats:jobs'), 'lost', 1)
    count_lost(id, job[7])
  end
  if (tonumber(redis.call('HGET', key('j', id), 'lost')) or 0) >= POISON_AFTER then reason = 'poison' end
  if not reason and tonumber(job[2]) < tonumber(job[3]) and job[6] ~= '1' then
    redis.call('ZREM', key('leases'), id)
    redis.call('HDEL', key('j', id), 'claim')
    attempt_failed(id, job[2], cjson.encode({outcome = 'lost', claim = job[7]}))
    move(id, job[4], 'processing', 'pending')
    outbox_push(id, job[4], job[5], now)
    back = back + 1
  else
    to_end(id, reason or 'orphaned')
  end
end

if now >= sweep_begins('jobs', lease) then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('leases'), '-inf', now, 'LIMIT', 0, at_most)) do reap(id) end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('deadlines'), '-inf', now, 'LIMIT', 0, at_most)) do
  if redis.call('HGET', key('j', id), 'status') == 'pending' then
    to_end(id, 'queue_timeout')
  else
    redis.call('ZREM', key('deadlines'), id)
  end
end
if back > 0 then wake_relay() end
return {now, back, ended}

#!lua
-- Takes a job: nothing -> pending, with its place in the outbox. Refused at the memory limit: no allow-oom.
-- KEYS 1 partition prefix
-- ARGV 1 job, 2 tenant, 3 priority, 4 run at in µs or '', 5 µs within which it must begin once it may, or '',
--      6 endpoint or '', 7 its origin, 8 its sealed secret for v1, 9 its initial limit, 10 scheme, 11 its sealed
--      secret for that scheme or '', 12 at most how many endpoints of a tenant, 13 attempts a second until it is
--      verified, 0 for any number, '' to leave it,
--      then the job's fields: name, value, ...
-- Demands an endpoint that exists, or room for one more of the tenant's. A job of this identifier that exists stays
-- as it is.
-- Returns the job's view, or -1 when the tenant has too many endpoints: nothing is kept
-- include: job
-- include: delivery/register
local id, tenant, priority = ARGV[1], ARGV[2], ARGV[3]
local run_at, begin_within = tonumber(ARGV[4]), tonumber(ARGV[5])
if redis.call('EXISTS', key('j', id)) == 0 then
  if ARGV[6] ~= '' and too_many(ARGV[6], tenant, tonumber(ARGV[12])) then return -1 end
  if ARGV[6] ~= '' then register(ARGV[6], tenant, ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[13]) end
  redis.call('HSET', key('j', id), 'createdAt', now)
  for at = 14, #ARGV, 2 do redis.call('HSET', key('j', id), ARGV[at], ARGV[at + 1]) end
  take_space(tenant, redis.call('HGET', key('j', id), 'given'))
  redis.call('ZADD', key('jobs', tenant), now, id)
  move(id, tenant, nil, 'pending')
  local due = now
  if run_at and run_at > now then
    due = run_at
    redis.call('ZADD', key('later'), due, id)
  else
    outbox_push(id, tenant, priority, now)
  end
  if begin_within then redis.call('ZADD', key('deadlines'), due + begin_within, id) end
  wake_relay()
end
return job_view(id)

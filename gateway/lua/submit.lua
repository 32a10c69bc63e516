#!lua
-- Takes a job: nothing -> pending, with its place in the outbox. Refused at the memory limit: no allow-oom.
-- KEYS 1 partition prefix
-- ARGV 1 job, 2 tenant, 3 priority, 4 run at in µs or '', 5 endpoint or '', 6 its origin, 7 its sealed secret,
--      8 its initial limit, then the job's fields: name, value, ...
-- Demands nothing: a job of this identifier that exists stays as it is.
-- Returns the job's view
-- include: job
-- include: delivery/register
local id, tenant, priority, run_at = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if redis.call('EXISTS', key('j', id)) == 0 then
  if ARGV[5] ~= '' then register(ARGV[5], tenant, ARGV[6], ARGV[7], ARGV[8]) end
  for at = 9, #ARGV, 2 do redis.call('HSET', key('j', id), ARGV[at], ARGV[at + 1]) end
  redis.call('HSET', key('j', id), 'createdAt', now)
  job_change(id)
  if run_at and run_at > now then
    redis.call('ZADD', key('later'), run_at, id)
  else
    outbox_push(id, tenant, priority, now)
  end
  wake_relay()
end
return job_view(id)

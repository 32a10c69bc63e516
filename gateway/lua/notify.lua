#!lua flags=allow-oom
-- Owes a delivery besides that of a job's end, once: that it has begun, that its results are about to go.
-- KEYS 1 partition prefix
-- ARGV 1 job, 2 revision that the body was rendered from, 3 delivery, 4 its sealed URL, 5 its sealed headers or '',
--      6 its tags, 7 its body, 8 dead retention in µs, 9 what it tells: beginning or notice, the member that notes it,
--      10 the trace that the delivery goes on from, or ''
-- Demands the job at this revision.
-- Returns 1 done, also when it was before, 0 changed since
-- include: job
-- include: delivery/enqueue
local id, member = ARGV[1], ARGV[9]
local job = redis.call('HMGET', key('j', id), 'rev', 'endpoint', 'tenant', 'urlHash', 'signature', member)
if not job[6] and job[1] ~= ARGV[2] then return 0 end
if member == 'notice' then redis.call('ZREM', key('notices'), id) end
if job[6] then return 1 end
redis.call('HSET', key('j', id), member, ARGV[3])
enqueue({
  id = ARGV[3], ep = job[2], tenant = job[3], url = ARGV[4], url_hash = job[4], headers = ARGV[5],
  tags = ARGV[6], body = ARGV[7], retention = tonumber(ARGV[8]), scheme = job[5],
  trace = ARGV[10],
})
announce()
return 1

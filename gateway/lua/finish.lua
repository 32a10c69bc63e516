#!lua flags=allow-oom
-- processing -> completed | failed | cancelled, together with the delivery that this end owes.
-- KEYS 1 partition prefix
-- ARGV 1 job, 2 claim, 3 revision that the callback's body was rendered from, 4 status, 5 completed at in µs,
--      6 expires at in µs, 7 delivery or '', 8 its sealed URL, 9 its sealed headers or '', 10 its tags, 11 its body,
--      12 dead retention in µs, 13 attempt's record as JSON, 14 who ends it: a token of the caller's,
--      then fields: name, value, ...
-- Demands `processing` under this claim at this revision. Ended by this very caller is success.
-- Returns {1 done, view}, {2 changed since: render again, view}, or {0 the claim is lost, view or nil}
-- include: job
-- include: delivery/enqueue
local id, claim = ARGV[1], ARGV[2]
local job = redis.call('HMGET', key('j', id), 'status', 'claim', 'rev', 'settled', 'endpoint', 'tenant', 'urlHash', 'attempt')
if job[4] == ARGV[14] then return {1, job_view(id)} end
if job[1] ~= 'processing' or job[2] ~= claim then return {0, job_view(id)} end
if job[3] ~= ARGV[3] then return {2, job_view(id)} end

redis.call('ZREM', key('leases'), id)
redis.call('ZADD', key('expiry'), ARGV[6], id)
redis.call('HDEL', key('j', id), 'claim', 'lost', 'rings')
for at = 15, #ARGV, 2 do redis.call('HSET', key('j', id), ARGV[at], ARGV[at + 1]) end
job_change(id, 'status', ARGV[4], 'completedAt', ARGV[5], 'expiresAt', ARGV[6], 'settled', ARGV[14],
  'a' .. job[8], ARGV[13])
redis.call('HSET', key('j', id), 'updatedAt', ARGV[5])
if ARGV[7] ~= '' then
  redis.call('HSET', key('j', id), 'delivery', ARGV[7])
  enqueue({
    id = ARGV[7], ep = job[5], tenant = job[6], url = ARGV[8], url_hash = job[7], headers = ARGV[9],
    tags = ARGV[10], body = ARGV[11], retention = tonumber(ARGV[12]),
  })
  announce()
end
return {1, job_view(id)}

#!lua flags=allow-oom
-- pending or processing -> completed | failed | cancelled, together with the delivery that this end owes.
-- KEYS 1 partition prefix
-- ARGV 1 job, 2 claim, '' if nobody holds it, 3 revision that the callback's body was rendered from, 4 status,
--      5 completed at in µs, 6 expires at in µs, 7 when to tell that the results are about to go in µs or '',
--      8 delivery or '', 9 its sealed URL, 10 its sealed headers or '', 11 its tags, 12 its body,
--      13 dead retention in µs, 14 attempt's record as JSON, 15 who ends it: a token of the caller's,
--      16 the trace its delivery goes on from or '', then fields: name, value, ...
-- Demands `processing` under this claim, or without one `pending`, at this revision. Ended by this very caller is
-- success.
-- Returns {1 done, view}, {2 changed since: render again, view}, or {0 not the caller's to end, nil}
-- include: job
-- include: delivery/enqueue
local id, claim, status, completed_at = ARGV[1], ARGV[2], ARGV[4], tonumber(ARGV[5])
local j = {}
for at, name in ipairs({'status', 'claim', 'rev', 'settled', 'endpoint', 'tenant', 'urlHash', 'attempt', 'priority',
  'type', 'attemptAt', 'signature'}) do
  j[name] = redis.call('HGET', key('j', id), name)
end
if j.settled and j.settled == ARGV[15] then return {1, job_view(id)} end
local held = j.status == 'processing' and j.claim == claim
local waits = j.status == 'pending' and claim == ''
if not (held or waits) then return {0, false} end
if j.rev ~= ARGV[3] then return {2, job_view(id)} end

if waits then
  outbox_remove(id, j.tenant, j.priority)
  redis.call('ZREM', key('deadlines'), id)
else
  redis.call('ZREM', key('leases'), id)
  local note = status == 'completed' and attempt_over or attempt_failed
  note(id, j.attempt, ARGV[14])
end
redis.call('ZADD', key('expiry'), ARGV[6], id)
if ARGV[7] ~= '' then redis.call('ZADD', key('notices'), ARGV[7], id) end
redis.call('HDEL', key('j', id), 'claim', 'lost', 'rings', 'came', 'nextRunAt')
for at = 17, #ARGV, 2 do redis.call('HSET', key('j', id), ARGV[at], ARGV[at + 1]) end
take_space(j.tenant, redis.call('HGET', key('j', id), 'made'))
move(id, j.tenant, j.status, status, 'completedAt', completed_at, 'expiresAt', ARGV[6], 'settled', ARGV[15])
redis.call('HSET', key('j', id), 'updatedAt', completed_at)

redis.call('HINCRBY', key('stats:jobs'), 'ended:' .. status .. ':' .. j.type, 1)
if status == 'failed' then list_failed(id, j.tenant, completed_at) end
if status == 'completed' and j.attemptAt then
  -- A moving average: recent durations count most, one odd run not much.
  local took = math.max(0, completed_at - tonumber(j.attemptAt))
  local usual = tonumber(redis.call('HGET', key('durations'), j.type) or took)
  redis.call('HSET', key('durations'), j.type, math.floor(usual * 0.8 + took * 0.2))
end
if ARGV[8] ~= '' then
  redis.call('HSET', key('j', id), 'delivery', ARGV[8])
  enqueue({
    id = ARGV[8], ep = j.endpoint, tenant = j.tenant, url = ARGV[9], url_hash = j.urlHash, headers = ARGV[10],
    tags = ARGV[11], body = ARGV[12], retention = tonumber(ARGV[13]), scheme = j.signature,
    trace = ARGV[16],
  })
  announce()
end
return {1, job_view(id)}

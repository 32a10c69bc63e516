#!lua flags=allow-oom
-- Brings back jobs whose lease ran out.
-- KEYS 1 partition prefix
-- ARGV 1 lease in µs, 2 at most how many
-- Demands `processing` with an expired lease: with attempts left it is pending again, at once; else it is for
-- the caller to end, under the claim it is held by.
-- Returns {now, how many came back, views of those to end}
-- include: job
local lease, at_most = tonumber(ARGV[1]), tonumber(ARGV[2])
local QUIET_GAP = 5 * 1000000

-- When nobody swept for a while the store was away, and leases of healthy workers ran out unrenewed: wait one whole
-- lease before any is taken for lost.
local last = tonumber(redis.call('GET', key('swept:jobs')) or now)
redis.call('SET', key('swept:jobs'), now)
if now - last > QUIET_GAP then
  redis.call('SET', key('quiet:jobs'), now + lease, 'PX', math.ceil(lease / 1000))
end
if now < tonumber(redis.call('GET', key('quiet:jobs')) or 0) then return {now, 0, {}} end

local back, ended = 0, {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('leases'), '-inf', now, 'LIMIT', 0, at_most)) do
  local job = redis.call('HMGET', key('j', id), 'status', 'attempt', 'maxAttempts', 'tenant', 'priority', 'cancelRequested', 'claim')
  if job[1] ~= 'processing' then
    redis.call('ZREM', key('leases'), id)
  elseif tonumber(job[2]) < tonumber(job[3]) and job[6] ~= '1' then
    redis.call('ZREM', key('leases'), id)
    redis.call('HDEL', key('j', id), 'claim')
    job_change(id, 'status', 'pending', 'a' .. job[2], cjson.encode({outcome = 'lost', claim = job[7]}))
    outbox_push(id, job[4], job[5], now)
    back = back + 1
  else
    ended[#ended + 1] = {id, job_view(id)}
  end
end
return {now, back, ended}

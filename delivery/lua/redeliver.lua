#!lua flags=allow-oom
-- A person wants it sent now. What is pending and waits is due at once; what has ended gets one attempt more, which
-- leaves a delivered one delivered.
-- KEYS 1 partition prefix
-- ARGV 1 delivery, 2 a token of the wish
-- Demands a delivery that is still whole, and an endpoint that was not deleted. The same token again changes nothing.
-- Returns the state it is in, why it cannot be sent (redelivery_over, endpoint_deleted), or nil when unknown
-- include: bury
local id, token = ARGV[1], ARGV[2]
local d = fields_of(id, {'state', 'ep', 'claim', 'manual', 'trigger', 'asked'})
if not d[1] then return nil end
if redis.call('EXISTS', key('d', id, 'body')) == 0 then return 'redelivery_over' end
if redis.call('EXISTS', key('ep', d[2])) == 0 then return 'endpoint_deleted' end
if d[6] == token then return d[1] end
redis.call('HSET', key('d', id), 'asked', token)
local queue = key('ep', d[2], queue_of(d[5], d[1] ~= 'pending'))
if d[1] ~= 'pending' and not d[4] then
  redis.call('HSET', key('d', id), 'manual', '1', 'keepUntil', redis.call('PEXPIRETIME', key('d', id)), 'nextAt', now)
  redis.call('HDEL', key('d', id), 'lost')
  redis.call('PERSIST', key('d', id))
  redis.call('PERSIST', key('d', id, 'body'))
  redis.call('ZADD', queue, now, id)
else
  -- One that is being attempted, or is a suspect, is in no queue, and is as early as it can be.
  local due = redis.call('ZSCORE', queue, id)
  if due and tonumber(due) > now then
    redis.call('ZADD', queue, now, id)
    redis.call('HSET', key('d', id), 'nextAt', now)
  end
end
rescore(d[2])
announce()
return d[1]

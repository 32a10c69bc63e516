#!lua flags=allow-oom
-- dead -> pending: attempts begin anew under the same identifier, behind live traffic; history stays.
-- KEYS 1 partition prefix
-- ARGV deliveries
-- Demands `dead`, and an endpoint that was not deleted; else nothing changes. Running twice replays once.
-- Returns for each: the state it was in, or '' when it or its endpoint is unknown
-- include: bury
local states = {}
for _, id in ipairs(ARGV) do
  local d = redis.call('HMGET', key('d', id), 'state', 'ep', 'manual', 'claim')
  local e = d[2] and redis.call('HMGET', key('ep', d[2]), 'origin', 'paused', 'pausedFor') or {}
  local has_endpoint = e[1]
  if d[1] == 'dead' and has_endpoint then
    exhume(id)
    redis.call('HDEL', key('d', id), 'reason', 'endedAt', 'used', 'step', 'lost', 'manual', 'keepUntil')
    redis.call('HSET', key('d', id), 'state', 'pending', 'trigger', 'replay', 'bornAt', now, 'nextAt', now,
      'pausedBase', paused_total(e[2], e[3]))
    redis.call('PERSIST', key('d', id))
    redis.call('PERSIST', key('d', id, 'body'))
    -- An attempt that a person asked for, and that is under way, is the first of those that begin now.
    if not (d[3] and d[4]) then
      unschedule(id, d[2])
      redis.call('ZADD', key('ep', d[2], 'replay'), now, id)
    end
    rescore(d[2])
  end
  states[#states + 1] = has_endpoint and d[1] or ''
end
announce()
return states

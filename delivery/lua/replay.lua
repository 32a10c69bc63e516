#!lua flags=allow-oom
-- dead -> pending: attempts begin anew under the same identifier, behind live traffic; history stays.
-- KEYS 1 partition prefix
-- ARGV deliveries
-- Demands `dead`; of any other state nothing changes, so running twice replays once.
-- Returns for each: the state it was in, or '' when unknown
-- include: bury
local states = {}
for _, id in ipairs(ARGV) do
  local d = redis.call('HMGET', key('d', id), 'state', 'ep', 'manual', 'claim')
  if d[1] == 'dead' then
    redis.call('ZREM', key('dead'), id)
    redis.call('HDEL', key('d', id), 'reason', 'endedAt', 'used', 'step', 'lost', 'manual', 'keepUntil')
    redis.call('HSET', key('d', id), 'state', 'pending', 'trigger', 'replay', 'bornAt', now, 'nextAt', now)
    redis.call('PERSIST', key('d', id))
    redis.call('PERSIST', key('d', id, 'body'))
    -- An attempt that a person asked for, and that is under way, is the first of those that begin now.
    if not (d[3] and d[4]) then
      unschedule(id, d[2])
      redis.call('ZADD', key('ep', d[2], 'replay'), now, id)
    end
    rescore(d[2])
  end
  states[#states + 1] = d[1] or ''
end
announce()
return states

-- include: endpoint
-- include: notice
-- Fragment: a delivery's ends. Each leaves it in no schedule; the caller rescores its endpoint.
local function unschedule(id, ep)
  for _, set in ipairs({'live', 'replay', 'inflight'}) do
    redis.call('ZREM', key('ep', ep, set), id)
  end
  redis.call('ZREM', key('suspects'), id)
end

-- The queue of its endpoint that a delivery waits in: what is replayed waits behind all else.
local function queue_of(trigger, manual)
  return trigger == 'replay' and not manual and 'replay' or 'live'
end

local function keep_for(id, retention)
  redis.call('PEXPIRE', key('d', id), math.floor(retention / 1000))
  redis.call('PEXPIRE', key('d', id, 'body'), math.floor(retention / 1000))
end

-- pending -> dead. Keeps everything for `retention` µs; older dead letters leave the index, a few at a time. A test
-- is no letter: nobody waits for it, and nobody replays it.
local function bury(id, ep, reason, retention)
  unschedule(id, ep)
  redis.call('HDEL', key('d', id), 'claim', 'nextAt')
  redis.call('HSET', key('d', id), 'state', 'dead', 'reason', reason, 'endedAt', now)
  keep_for(id, retention)
  if redis.call('HGET', key('d', id), 'trigger') == 'test' then return end
  redis.call('ZADD', key('dead'), now, id)
  count('dead:' .. reason)
  if reason ~= 'disabled' then notice('delivery.exhausted', id, ep, reason) end
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', key('dead'), '-inf', now - retention, 'LIMIT', 0, 20)) do
    redis.call('ZREM', key('dead'), old)
  end
end

-- The attempt that a person asked for is over, and the delivery is what it was before. It is kept for as long as
-- it would have been, and long enough to see what came of it.
local function manual_over(id, ep)
  unschedule(id, ep)
  local life = math.max(tonumber(redis.call('HGET', key('d', id), 'keepUntil')), math.floor(now / 1000) + 3600 * 1000)
  redis.call('HDEL', key('d', id), 'manual', 'keepUntil', 'nextAt')
  redis.call('PEXPIREAT', key('d', id), life)
  redis.call('PEXPIREAT', key('d', id, 'body'), life)
end

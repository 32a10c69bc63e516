-- include: endpoint
-- Fragment: a delivery's ends. Both leave it in no schedule; the caller rescores its endpoint.
local function unschedule(id, ep)
  for _, set in ipairs({'live', 'replay', 'inflight'}) do
    redis.call('ZREM', key('ep', ep, set), id)
  end
  redis.call('ZREM', key('suspects'), id)
end

local function keep_for(id, retention)
  redis.call('PEXPIRE', key('d', id), math.floor(retention / 1000))
  redis.call('PEXPIRE', key('d', id, 'body'), math.floor(retention / 1000))
end

-- pending -> dead. Keeps everything for `retention` µs; older dead letters leave the index, a few at a time.
local function bury(id, ep, reason, retention)
  unschedule(id, ep)
  redis.call('HDEL', key('d', id), 'claim', 'nextAt')
  redis.call('HSET', key('d', id), 'state', 'dead', 'reason', reason, 'endedAt', now)
  redis.call('ZADD', key('dead'), now, id)
  keep_for(id, retention)
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', key('dead'), '-inf', now - retention, 'LIMIT', 0, 20)) do
    redis.call('ZREM', key('dead'), old)
  end
end

-- include: endpoint
-- include: gone
-- include: notice
-- include: shelf
-- include: dead
-- include: progress
-- Fragment: a delivery's ends. Each leaves it in no schedule; the caller rescores its endpoint.
local function unschedule(id, ep)
  for _, set in ipairs({'live', 'replay', 'inflight'}) do
    redis.call('ZREM', key('ep', ep, set), id)
  end
  local suspects = key('ep', ep, 'suspects')
  if redis.call('ZREM', suspects, id) == 1 and redis.call('EXISTS', suspects) == 0 then
    redis.call('ZREM', key('suspects'), ep)
  end
end

-- The queue of its endpoint that a delivery waits in: what is replayed waits behind all else.
local function queue_of(trigger, manual)
  return trigger == 'replay' and not manual and 'replay' or 'live'
end

local function keep_for(id, retention)
  local life = math.floor((retention + TTL_MARGIN) / 1000)
  redis.call('PEXPIRE', key('d', id), life)
  redis.call('PEXPIRE', key('d', id, 'body'), life)
end

-- pending -> dead. Keeps everything for `retention` µs, or as long as the bounds of its tenant allow. A test is no
-- letter: nobody waits for it, and nobody replays it.
local function bury(id, ep, reason, retention)
  unschedule(id, ep)
  redis.call('HDEL', key('d', id), 'claim', 'nextAt', 'pausedBase')
  redis.call('HSET', key('d', id), 'state', 'dead', 'reason', reason, 'endedAt', now)
  keep_for(id, retention)
  local d = redis.call('HMGET', key('d', id), 'tenant', 'trigger')
  if d[2] == 'test' then return shelve('delivered', d[1], id) end
  list_dead(id, d[1], now)
  shelve('dead', d[1], id)
  replay_over(id, 'dead', reason)
  count('dead:' .. reason)
  if reason ~= 'disabled' then notice('delivery.exhausted', id, ep, reason) end
end

-- Out of what has ended, to begin anew or to go for good. The caller sees to its keys.
local function exhume(id)
  unlist_dead(id, fields_of(id, {'tenant'})[1])
  unshelve(id)
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

-- include: base
-- Fragment: an endpoint's place in the schedule.
--
-- Keys of an endpoint `e`:
--   ep:<e>            hash: tenant, origin, secret:<scheme> (sealed: the newest and those in their overlap), createdAt,
--                     limit, failures, opens, openUntil, halvedAt, succeededAt, paused
--   ep:<e>:live       zset of deliveries waiting, by the instant they are due
--   ep:<e>:replay     the same, of replayed ones; served behind `live`
--   ep:<e>:inflight   zset of deliveries being attempted, by the end of their lease
--   ep:<e>:gone       set of hashes of URLs that answered 410
-- Keys of the partition:
--   ready:proven, ready:unproven   zsets of endpoints with something to do now, by turn
--   agenda                         zset of endpoints by the instant at which to look at them again
--   procs                          zset of delivery processes by their last heartbeat
--   sleeping                       until when a process with free slots means to sleep; absent when none does
--   breakers                       zset of endpoints whose breaker is open, by until when it lets nothing through
--   quiet                          until when no lease is taken for lost
local BREAKER_FAILURES = 5
local PROVEN_FOR = 3600 * 1000000

local made_ready = false
local quiet_until = tonumber(redis.call('GET', key('quiet')) or 0)

local function is_proven(succeeded_at)
  return succeeded_at and now - tonumber(succeeded_at) < PROVEN_FOR
end

local function breaker_open(failures)
  return (tonumber(failures) or 0) >= BREAKER_FAILURES
end

-- Every script that touches an endpoint ends with this: one place for it, or none.
--   nothing to do                     -> absent
--   due now and below its limit       -> ready, at the tail if it was not ready before
--   full                              -> agenda, at its earliest lease end
--   breaker open, or due later        -> agenda, at that instant
local function rescore(id)
  local e = redis.call('HMGET', key('ep', id), 'limit', 'failures', 'openUntil', 'succeededAt', 'paused')
  local inflight = key('ep', id, 'inflight')
  local lease = head_score(inflight)
  if lease and lease < quiet_until then lease = quiet_until end
  local at
  if not e[5] then
    local live, replay = head_score(key('ep', id, 'live')), head_score(key('ep', id, 'replay'))
    at = live and replay and math.min(live, replay) or live or replay
    if at then
      local limit = breaker_open(e[2]) and 1 or tonumber(e[1]) or 1
      at = math.max(at, tonumber(e[3]) or 0)
      if lease and redis.call('ZCARD', inflight) >= limit then at = lease end
    end
  end
  if lease and (not at or lease < at) then at = lease end

  local ready, other = key('ready:unproven'), key('ready:proven')
  if is_proven(e[4]) then ready, other = other, ready end
  redis.call('ZREM', other, id)
  if at and at <= now then
    redis.call('ZREM', key('agenda'), id)
    if redis.call('ZADD', ready, 'NX', turn(), id) == 1 then made_ready = true end
  else
    redis.call('ZREM', ready, id)
    if at then
      redis.call('ZADD', key('agenda'), at, id)
    else
      redis.call('ZREM', key('agenda'), id)
    end
  end
end

-- Wakes the delivery processes that sleep (`sleeping` holds until when) if there is something to do before that.
-- Busy ones are not told: they claim again as their slots come free.
local function announce()
  local until_at = redis.call('GET', key('sleeping'))
  if not until_at then return end
  local agenda = head_score(key('agenda'))
  if made_ready or agenda and agenda < tonumber(until_at) then
    redis.call('DEL', key('sleeping'))
    redis.call('PUBLISH', key('wake:delivery'), '1')
  end
end

-- include: base
-- include: quiet
-- include: rate
-- include: host
-- Fragment: an endpoint's place in the schedule.
--
-- Keys of an endpoint `e`:
--   ep:<e>            hash: tenant, origin, secret:<scheme> (sealed: the newest and those in their overlap), createdAt,
--                     limit, failures, opens, openUntil, halvedAt, succeededAt, failure (the last one: when, status
--                     code or -, what it is called), paused (since when), pausedFor (µs of pauses that are over), rate
--                     (attempts a second), tat (see `rate`), maxLimit (the most that limit may be), verifiedAt (its
--                     receiver answered a challenge), unverified (attempts a second until then), urlsAt (when an
--                     operator last said which URLs are disabled), mirrorOf (of a mirror: the endpoint that it is
--                     like), likeAt (when that one was as this one is), part (of an endpoint that has mirrors, and of a
--                     mirror: what it has of its rate), lentAt (when a mirror of it was last asked for),
--                     others (of an endpoint that has mirrors: in how many other partitions there may be any)
--   ep:<e>:live       zset of deliveries waiting, by the instant they are due
--   ep:<e>:replay     the same, of replayed ones; served behind `live`
--   ep:<e>:inflight   zset of deliveries being attempted, by the end of their lease
--   ep:<e>:suspects   zset of deliveries waiting that processes died of, by turn
--   ep:<e>:gone       hash of disabled URLs, by their hash; see `gone`
-- Keys of the partition:
--   eps:<tenant>                   set of a tenant's endpoints
--   ready:proven                   zset of endpoints with something to do now, by turn
--   ready:unproven:<tenant>        the same, of a tenant's endpoints without a recent success
--   ready:unproven                 zset of the tenants that have any, by turn
--   ready:replay                   zset of endpoints with nothing to do but replays, proven or not; served behind the
--                                  others
--   suspects                       zset of endpoints with suspects, by turn
--   agenda                         zset of endpoints by the instant at which to look at them again
--   procs                          zset of delivery processes by their last heartbeat
--   sleeping                       until when a process with free slots means to sleep; absent when none does
--   breakers                       zset of endpoints whose breaker is open, by until when it lets nothing through
local BREAKER_FAILURES = 5
local PROVEN_FOR = 3600 * 1000000
-- Who failed last time lets those go first that come up to so much later.
local FAILED_WAITS = 60 * 1000000
local ADMITTED = 64

local made_ready = false
local quiet_until = quiet_until_of('deliveries')

local function is_proven(succeeded_at)
  return succeeded_at and now - tonumber(succeeded_at) < PROVEN_FOR
end

local function ready_set(tenant, succeeded_at)
  return is_proven(succeeded_at) and key('ready:proven') or key('ready:unproven', tenant)
end

-- A tenant has a turn while any of its unproven endpoints is ready, and the one it has is kept.
local function seat(tenant)
  if redis.call('EXISTS', key('ready:unproven', tenant)) == 1 then
    redis.call('ZADD', key('ready:unproven'), 'NX', turn(), tenant)
  else
    redis.call('ZREM', key('ready:unproven'), tenant)
  end
end

local function breaker_open(failures)
  return (tonumber(failures) or 0) >= BREAKER_FAILURES
end

-- The most that its limit may be, of what an operator said: the mirrors of an endpoint have what `slots_here` leaves
-- them. Nil where nobody said anything.
local function most_of(max_limit, others)
  max_limit = tonumber(max_limit)
  return max_limit and slots_here(max_limit, {lent = tonumber(others)})
end

local function keep_within(ep)
  local e = redis.call('HMGET', key('ep', ep), 'limit', 'maxLimit', 'others')
  local most = most_of(e[2], e[3])
  if most and tonumber(e[1]) > most then redis.call('HSET', key('ep', ep), 'limit', most) end
end

-- How many may be attempted at once.
local function limit_now(limit, failures)
  return breaker_open(failures) and 1 or tonumber(limit) or 1
end

-- How many of them may be when a replay begins: it leaves a quarter to what is live.
local function replays_of(limit)
  return math.ceil(limit * 3 / 4)
end

-- For how long an endpoint has been paused in all. Of a delivery's age only what is more than it was at its birth is
-- taken off, so that a pause is told of once, whatever waits.
local function paused_total(paused, paused_for)
  return (tonumber(paused_for) or 0) + (paused and now - tonumber(paused) or 0)
end

local function pause(ep, is_wanted)
  local e = redis.call('HMGET', key('ep', ep), 'paused', 'pausedFor')
  if is_wanted and not e[1] then
    redis.call('HSET', key('ep', ep), 'paused', now)
  elseif not is_wanted and e[1] then
    redis.call('HSET', key('ep', ep), 'pausedFor', paused_total(e[1], e[2]))
    redis.call('HDEL', key('ep', ep), 'paused')
  end
end

-- Slots of the host came free: those that wait for them are ready, the longest first, in the place they had. One that
-- has nothing but replays takes none of them from those behind it: when its turn comes is not known.
local function admit(host, load)
  local blocked, free = key('host', host, 'blocked'), load.limit - load.total
  if free > 0 then
    local first = redis.call('ZRANGE', blocked, 0, free + ADMITTED - 1, 'WITHSCORES')
    for at = 1, #first, 2 do
      if free <= 0 then break end
      local ep, live = first[at], head_score(key('ep', first[at], 'live'))
      redis.call('ZREM', blocked, ep)
      if live and live <= now then
        free = free - 1
        redis.call('ZREM', key('agenda'), ep)
        local e = redis.call('HMGET', key('ep', ep), 'tenant', 'succeededAt')
        redis.call('ZADD', ready_set(e[1], e[2]), first[at + 1], ep)
        seat(e[1])
      else
        redis.call('ZADD', key('ready:replay'), first[at + 1], ep)
      end
      made_ready = true
    end
  end
  if redis.call('EXISTS', blocked) == 0 then redis.call('HDEL', key('host', host), 'limit') end
end

-- Every script that touches an endpoint ends with this: one place for it, or none.
--   unknown, paused, or nothing to do   -> absent
--   due now and below its limit         -> ready, at the tail if it was not ready before; while others wait for its
--                                          host, behind them, and in the agenda lest it be forgotten
--   a replay due now, nothing live      -> ready behind all that is live, and in the agenda for what will be
--   full                                -> agenda, at its earliest lease end
--   breaker open, at its rate, or later -> agenda, at that instant
local function rescore(id)
  local e = redis.call('HMGET', key('ep', id), 'origin', 'limit', 'failures', 'openUntil', 'succeededAt', 'paused',
    'rate', 'tat', 'unverified', 'tenant', 'part')
  if not e[1] then return end
  local inflight = key('ep', id, 'inflight')
  local lease = head_score(inflight)
  local busy = lease and redis.call('ZCARD', inflight) or 0
  if lease and lease < quiet_until then lease = quiet_until end
  -- When there is something live to do, or a lease to look at; and when a replay.
  local live_at, replay_at = lease or math.huge, math.huge
  if not e[6] then
    local opens = math.max(tonumber(e[4]) or 0, rate_opens(slower(e[7], e[9], e[11]), e[8]))
    local limit = limit_now(e[2], e[3])
    local live, replay = head_score(key('ep', id, 'live')), head_score(key('ep', id, 'replay'))
    if live and busy < limit then live_at = math.min(live_at, math.max(live, opens)) end
    if replay and busy < replays_of(limit) then replay_at = math.max(replay, opens) end
  end

  local tenant, proven = e[10], is_proven(e[5])
  local at, ready, moved = live_at, false, false
  if live_at <= now then
    ready = ready_set(tenant, e[5])
  elseif replay_at <= now then
    ready = key('ready:replay')
  else
    at = math.min(live_at, replay_at)
  end
  for _, set in ipairs({key('ready:proven'), key('ready:unproven', tenant), key('ready:replay')}) do
    if set ~= ready and redis.call('ZREM', set, id) == 1 then moved = true end
  end
  local host = host_of(e[1])
  local load = note_busy(host, id, busy)
  if load.limit then
    -- A lease that ran out is looked at whether the host is full or not.
    if ready and not (lease and lease <= now) and not redis.call('ZSCORE', ready, id) then
      block(host, id, load.limit, turn())
      ready, at = false, math.min(live_at > now and live_at or math.huge, lease or math.huge, now + HOST_AGAIN)
    else
      redis.call('ZREM', key('host', host, 'blocked'), id)
    end
  end
  local behind = not proven and tonumber(e[3]) and FAILED_WAITS or 0
  if ready and redis.call('ZADD', ready, 'NX', turn() + behind, id) == 1 then made_ready = true end
  if at <= now or at == math.huge then
    redis.call('ZREM', key('agenda'), id)
  else
    redis.call('ZADD', key('agenda'), at, id)
  end
  if moved or not proven then seat(tenant) end
  if load.limit then admit(host, load) end
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

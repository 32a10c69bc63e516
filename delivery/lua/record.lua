#!lua flags=allow-oom
-- Records what became of attempts, and decides nothing: the decision comes with each.
-- KEYS 1 partition prefix
-- ARGV 1 delivered retention in µs, 2 dead retention in µs, 3 upper bound of an endpoint's limit,
--      then for each attempt: delivery, claim, verb (delivered, retry, dead), reason (of dead, else ''),
--      delay in µs (of retry), budget used, schedule step, status code or '', limit (grow, halve, keep),
--      breaker (good, bad, neutral), the attempt's record as JSON
-- Demands that the delivery is held under this claim.
-- Returns for each: 1 recorded, 2 recorded before (the script ran twice), 0 stale: another claim holds it
-- include: bury
local delivered_for, dead_for, limit_max = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local WIDTH, KEPT = 11, 20
local HALVE_AGAIN = 1000000
local OPEN_FIRST, OPEN_MOST = 5 * 1000000, 300 * 1000000

-- Up by one while answers are good; halved at most once a second, since a burst of refusals is one event.
local function adapt(ep, change)
  local e = redis.call('HMGET', key('ep', ep), 'limit', 'halvedAt')
  local limit = tonumber(e[1]) or 1
  if change == 'grow' and limit < limit_max then
    redis.call('HSET', key('ep', ep), 'limit', limit + 1)
  elseif change == 'halve' and now - (tonumber(e[2]) or 0) > HALVE_AGAIN then
    redis.call('HSET', key('ep', ep), 'limit', math.max(1, math.floor(limit / 2)), 'halvedAt', now)
  end
end

-- Open means one attempt at a time, not before `openUntil`. A good answer closes; there is no third state.
local function judge(ep, verdict)
  if verdict == 'good' then
    redis.call('HSET', key('ep', ep), 'succeededAt', now)
    if redis.call('HDEL', key('ep', ep), 'failures', 'opens', 'openUntil') > 0 then
      redis.call('ZREM', key('breakers'), ep)
    end
  elseif verdict == 'bad' and breaker_open(redis.call('HINCRBY', key('ep', ep), 'failures', 1))
    and (tonumber(redis.call('HGET', key('ep', ep), 'openUntil')) or 0) <= now then
    -- What was under way when it opened is the same event.
    local opens = redis.call('HINCRBY', key('ep', ep), 'opens', 1)
    local open_until = now + math.min(OPEN_FIRST * 2 ^ math.min(opens - 1, 10), OPEN_MOST)
    redis.call('HSET', key('ep', ep), 'openUntil', open_until)
    redis.call('ZADD', key('breakers'), open_until, ep)
  end
end

local function settle(id, ep, claim, n, status, record)
  redis.call('ZREM', key('ep', ep, 'inflight'), id)
  redis.call('HSET', key('d', id), 'settled', claim, 'a' .. n, record)
  redis.call('HDEL', key('d', id), 'claim', 'lost', 'a' .. (n - KEPT))
  if status ~= '' then redis.call('HSET', key('d', id), 'lastStatus', status) end
end

-- The URL answered 410: it is called no more.
local function disable(id, ep, url_hash)
  if redis.call('SADD', key('ep', ep, 'gone'), url_hash) == 1 then notice('endpoint.disabled', id, ep, 'gone') end
end

local verbs = {}

function verbs.delivered(id, ep)
  unschedule(id, ep)
  redis.call('HSET', key('d', id), 'state', 'delivered', 'endedAt', now)
  redis.call('HDEL', key('d', id), 'nextAt', 'reason')
  keep_for(id, delivered_for)
end

function verbs.retry(id, ep, d, _, delay, used, step)
  local due = now + tonumber(delay)
  redis.call('HSET', key('d', id), 'used', used, 'step', step, 'nextAt', due)
  redis.call('ZADD', key('ep', ep, queue_of(d[4])), due, id)
end

function verbs.dead(id, ep, d, reason, _, used, step)
  redis.call('HSET', key('d', id), 'used', used, 'step', step)
  if reason == 'gone' then disable(id, ep, d[5]) end
  bury(id, ep, reason, d[4] == 'test' and delivered_for or dead_for)
end

-- An attempt that a person asked for changes one state only: what was dead and is taken now is delivered. Set
-- aside before anything was sent, which leaves the step where it was, it waits again.
local function manual(id, ep, d, verb, reason, delay, step)
  if verb == 'retry' and tonumber(step) == tonumber(d[8] or 0) then
    redis.call('HSET', key('d', id), 'nextAt', now + tonumber(delay))
    redis.call('ZADD', key('ep', ep, 'live'), now + tonumber(delay), id)
    return
  end
  if reason == 'gone' then disable(id, ep, d[5]) end
  manual_over(id, ep)
  if verb == 'delivered' and d[9] == 'dead' then
    redis.call('ZREM', key('dead'), id)
    verbs.delivered(id, ep)
  end
end

local results, touched = {}, {}
for at = 4, #ARGV, WIDTH do
  local id, claim, verb, reason, delay, used, step, status, limit, verdict, record = unpack(ARGV, at, at + WIDTH - 1)
  local d = redis.call('HMGET', key('d', id), 'claim', 'settled', 'ep', 'trigger', 'urlHash', 'n', 'manual', 'step',
    'state')
  local result = 0
  if d[1] == claim then
    local ep = d[3]
    settle(id, ep, claim, d[6], status, record)
    if d[7] then
      manual(id, ep, d, verb, reason, delay, step)
    else
      verbs[verb](id, ep, d, reason, delay, used, step)
    end
    adapt(ep, limit)
    judge(ep, verdict)
    touched[ep] = true
    result = 1
  elseif d[2] == claim then
    result = 2
  end
  results[#results + 1] = result
end
for ep in pairs(touched) do rescore(ep) end
announce()
return results

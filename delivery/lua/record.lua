#!lua flags=allow-oom
-- Records what became of attempts, and decides nothing: the decision comes with each.
-- KEYS 1 partition prefix
-- ARGV 1 delivered retention in µs, 2 dead retention in µs, 3 upper bound of an endpoint's limit,
--      then for each attempt: delivery, claim, verb (delivered, retry, dead), reason (of dead, else ''),
--      delay in µs (of retry), budget used, schedule step, status code or '', limit (grow, halve, keep),
--      breaker (good, bad, neutral), what the receiver's failure is called or '', the attempt's record as JSON
-- Demands that the delivery is held under this claim.
-- Returns for each: 1 recorded, 2 recorded before (the script ran twice), 0 stale: another claim holds it
-- include: bury
local delivered_for, dead_for, limit_max = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local WIDTH, KEPT = 12, 20
local HALVE_AGAIN = 1000000
local OPEN_FIRST, OPEN_MOST = 5 * 1000000, 300 * 1000000

-- What is known of an endpoint's health is read once, and written once when all attempts are seen.
local health = {}

local function health_of(ep)
  local h = health[ep]
  if h then return h end
  local e = redis.call('HMGET', key('ep', ep), 'origin', 'limit', 'halvedAt', 'failures', 'opens', 'openUntil',
    'maxLimit', 'others')
  h = {
    exists = e[1], was = tonumber(e[2]) or 1, limit = tonumber(e[2]) or 1, halved_at = tonumber(e[3]) or 0,
    failures = tonumber(e[4]) or 0, opens = tonumber(e[5]) or 0, open_until = tonumber(e[6]) or 0,
    most = math.min(limit_max, most_of(e[7], e[8]) or limit_max), was_ill = e[4] or e[5], set = {},
  }
  health[ep] = h
  return h
end

-- Up by one while answers are good; halved at most once a second, since a burst of refusals is one event.
local function adapt(h, change)
  if change == 'grow' and h.limit < h.most then
    h.limit = h.limit + 1
  elseif change == 'halve' and now - h.halved_at > HALVE_AGAIN then
    h.limit, h.halved_at = math.max(1, math.floor(h.limit / 2)), now
    h.set.halvedAt = now
  end
end

-- Open means one attempt at a time, not before `openUntil`. A good answer closes; there is no third state.
local function judge(h, verdict)
  if verdict == 'good' then
    h.failures, h.opens, h.open_until = 0, 0, 0
    h.set.succeededAt = now
  elseif verdict == 'bad' then
    h.failures = h.failures + 1
    -- What was under way when it opened is the same event.
    if breaker_open(h.failures) and h.open_until <= now then
      h.opens = h.opens + 1
      h.open_until = now + math.min(OPEN_FIRST * 2 ^ math.min(h.opens - 1, 10), OPEN_MOST)
    end
  end
end

local function write_health(ep, h)
  if not h.exists then return end
  if h.limit ~= h.was then h.set.limit = h.limit end
  if h.failures > 0 then h.set.failures = h.failures end
  if h.opens > 0 then
    h.set.opens, h.set.openUntil = h.opens, h.open_until
    redis.call('ZADD', key('breakers'), h.open_until, ep)
  elseif h.was_ill then
    redis.call('HDEL', key('ep', ep), 'opens', 'openUntil')
    redis.call('ZREM', key('breakers'), ep)
  end
  if h.failures == 0 and h.was_ill then redis.call('HDEL', key('ep', ep), 'failures') end
  local fields = {}
  for name, value in pairs(h.set) do
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if #fields > 0 then redis.call('HSET', key('ep', ep), unpack(fields)) end
end

-- The URL answered 410: it is called no more.
local function disable(id, ep, url_hash)
  if url_gone(ep, url_hash, id) then notice('endpoint.disabled', id, ep, 'gone') end
end

local verbs = {}

-- Held under its claim it is in no queue, so there is nothing to unschedule. What only attempts need goes.
function verbs.delivered(id, d)
  redis.call('HSET', key('d', id), 'state', 'delivered', 'endedAt', now)
  redis.call('HDEL', key('d', id), 'nextAt', 'reason', 'used', 'step', 'pausedBase')
  keep_for(id, delivered_for)
  shelve('delivered', d[10], id)
end

function verbs.retry(id, d, _, delay, used, step)
  local due = now + tonumber(delay)
  redis.call('HSET', key('d', id), 'used', used, 'step', step, 'nextAt', due)
  redis.call('ZADD', key('ep', d[3], queue_of(d[4])), due, id)
end

function verbs.dead(id, d, reason, _, used, step)
  redis.call('HSET', key('d', id), 'used', used, 'step', step)
  if reason == 'gone' then disable(id, d[3], d[5]) end
  bury(id, d[3], reason, d[4] == 'test' and delivered_for or dead_for)
end

-- Set aside before anything was sent, which leaves the step where it was.
local function is_aside(d, verb, step)
  return verb == 'retry' and tonumber(step) == tonumber(d[8] or 0)
end

-- An attempt that a person asked for changes one state only: what was dead and is taken now is delivered. One that
-- was set aside waits again.
local function manual(id, d, verb, reason, delay, step)
  local ep = d[3]
  if is_aside(d, verb, step) then
    redis.call('HSET', key('d', id), 'nextAt', now + tonumber(delay))
    redis.call('ZADD', key('ep', ep, 'live'), now + tonumber(delay), id)
    return
  end
  if reason == 'gone' then disable(id, ep, d[5]) end
  manual_over(id, ep)
  if verb == 'delivered' and d[9] == 'dead' then
    exhume(id)
    verbs.delivered(id, d)
  end
end

-- Whoever answered its challenge wants what is sent there.
local function answered(id, ep, h)
  if not h.exists or redis.call('HEXISTS', key('d', id), 'challenge') == 0 then return end
  h.set.verifiedAt = now
  redis.call('HDEL', key('ep', ep), 'unverified', 'tat')
  tell_mirrors(ep)
end

local results = {}
for at = 4, #ARGV, WIDTH do
  local id, claim, verb, reason, delay, used, step, status, limit, verdict, failure, record =
    unpack(ARGV, at, at + WIDTH - 1)
  local d = redis.call('HMGET', key('d', id), 'claim', 'settled', 'ep', 'trigger', 'urlHash', 'n', 'manual', 'step',
    'state', 'tenant', 'replay')
  local result = 0
  if d[1] == claim then
    redis.call('ZREM', key('ep', d[3], 'inflight'), id)
    if status == '' then
      redis.call('HSET', key('d', id), 'settled', claim, 'a' .. d[6], record)
    else
      redis.call('HSET', key('d', id), 'settled', claim, 'a' .. d[6], record, 'lastStatus', status)
    end
    redis.call('HDEL', key('d', id), 'claim', 'lost', 'a' .. (d[6] - KEPT))
    if d[7] then
      manual(id, d, verb, reason, delay, step)
    else
      if d[11] then replay_attempted(id, d[11], verb, is_aside(d, verb, step), status, record) end
      verbs[verb](id, d, reason, delay, used, step)
    end
    local h = health_of(d[3])
    adapt(h, limit)
    judge(h, verdict)
    if verb == 'delivered' and d[4] == 'test' then answered(id, d[3], h) end
    if failure ~= '' then
      h.set.failure = string.format('%.0f %s %s', now, status == '' and '-' or status, failure)
    end
    result = 1
  elseif d[2] == claim then
    result = 2
  end
  results[#results + 1] = result
end
for ep, h in pairs(health) do
  write_health(ep, h)
  rescore(ep)
end
announce()
return results

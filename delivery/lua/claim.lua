#!lua flags=allow-oom
-- Gives a process deliveries to attempt, and is its heartbeat.
-- KEYS 1 partition prefix
-- ARGV 1 process, 2 sequence of this batch (rises per process and partition), 3 at most how many,
--      4 lease in µs, 5 free slots for unproven endpoints, 6 1 if the process may take a suspect,
--      7 deliveries per endpoint and turn, 8 slots of an endpoint, 9 slots of a tenant (both of this process),
--      10 JSON {"endpoints": {id: free}, "tenants": {name: free}, "unproven": {name: taken}} of those with slots
--      taken; the last by tenant, what of them is for unproven endpoints, divided by the partitions that are asked,
--      11 dead retention in µs, 12 attempts at once to one host, whichever tenants' endpoints they are for,
--      13 at most how many of them replayed ones
-- Demands nothing. The last batch of each process is kept: the same sequence gets the same batch again.
-- Returns {now, next (µs: when something falls due, -1 never), rows, endpoints, 1 if more is ready}
--   row: {delivery, claim, attempt number, hash fields, body, 1 if a suspect}
--   endpoint: {endpoint, 1 if proven, sealed secrets for v1, v1a, x-signature; nil where it has none}
-- include: bury
local process, sequence, wanted, lease = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local unproven_free, suspect_free, few = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local endpoint_slots, tenant_slots = tonumber(ARGV[8]), tonumber(ARGV[9])
local taken, retention, host_limit = cjson.decode(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local replays_free = tonumber(ARGV[13])
local SUSPECT_AFTER, POISON_AFTER = 2, 5
local HEARTBEAT_LOST = 10 * 1000000
local SCAN, PASS, SUSPECT_SCAN = 64, 512, 16

local function heartbeat()
  quiet_until = sweep_begins('deliveries', lease)
  redis.call('ZADD', key('procs'), now, process)
  redis.call('ZREMRANGEBYSCORE', key('procs'), '-inf', now - 86400 * 1000000)
end

local function heartbeat_lost(claim)
  local owner = string.match(claim, '^[^:]+')
  local beat = tonumber(redis.call('ZSCORE', key('procs'), owner) or 0)
  return now - beat > HEARTBEAT_LOST
end

-- An attempt whose lease ran out is back at once; one that took its process with it is counted.
local function reap(id, ep)
  local d = redis.call('HMGET', key('d', id), 'claim', 'n', 'trigger', 'manual', 'lost')
  redis.call('ZREM', key('ep', ep, 'inflight'), id)
  if not d[1] then return end
  count('lost')
  -- A suspect stays one, even if this time its process lives.
  local lost = tonumber(d[5]) or 0
  if heartbeat_lost(d[1]) then lost = redis.call('HINCRBY', key('d', id), 'lost', 1) end
  redis.call('HSET', key('d', id), 'a' .. d[2], cjson.encode({outcome = 'lost', claim = d[1]}), 'nextAt', now)
  redis.call('HDEL', key('d', id), 'claim', 'a' .. (d[2] - 20))
  if lost >= POISON_AFTER and d[4] then
    manual_over(id, ep)
  elseif lost >= POISON_AFTER then
    bury(id, ep, 'poison', retention)
  elseif lost >= SUSPECT_AFTER then
    redis.call('ZADD', key('ep', ep, 'suspects'), now, id)
    redis.call('ZADD', key('suspects'), 'NX', turn(), ep)
  else
    redis.call('ZADD', key('ep', ep, queue_of(d[3], d[4])), now, id)
  end
end

local function reap_expired(ep)
  if now < quiet_until then return end
  local inflight = key('ep', ep, 'inflight')
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', inflight, '-inf', now, 'LIMIT', 0, SCAN)) do reap(id, ep) end
end

local ROW = {'ep', 'tenant', 'url', 'headers', 'tags', 'trigger', 'used', 'step', 'bornAt', 'claim', 'n', 'lost',
  'manual', 'scheme', 'trace', 'state', 'urlHash', 'pausedBase', 'challenge'}
local rows, endpoints, paused_for = {}, {}, {}

local function introduce(ep)
  if paused_for[ep] then return end
  local e = redis.call('HMGET', key('ep', ep), 'succeededAt', 'secret:v1', 'secret:v1a', 'secret:x-signature', 'paused',
    'pausedFor')
  paused_for[ep] = paused_total(e[5], e[6])
  endpoints[#endpoints + 1] = {ep, is_proven(e[1]) and 1 or 0, e[2], e[3], e[4]}
end

-- `d` is its row. Time that its endpoint was paused does not count towards its age.
local function hand_out(id, d)
  introduce(d[1])
  if d[13] then d[6] = 'manual' end
  d[9] = tonumber(d[9]) + paused_for[d[1]] - (tonumber(d[18]) or 0)
  local suspect = (tonumber(d[12]) or 0) >= SUSPECT_AFTER and 1 or 0
  rows[#rows + 1] = {id, d[10], d[11], d, redis.call('GET', key('d', id, 'body')) or '', suspect}
end

-- Its holder counts the lease from the request that is answered, not from the one whose reply was lost.
local function give_again(id, at)
  local d = redis.call('HMGET', key('d', id), unpack(ROW))
  if not d[1] or d[10] ~= process .. ':' .. sequence .. ':' .. at then return end
  redis.call('ZADD', key('ep', d[1], 'inflight'), 'XX', now + lease, id)
  rescore(d[1])
  hand_out(id, d)
end

local batch = {}
-- Waiting -> held under a claim. What a person asked for, a test included, goes out even to a disabled URL: that is
-- the way to see whether it still answers 410.
local function take(id, ep, has_gone)
  local d = redis.call('HMGET', key('d', id), unpack(ROW))
  if d[16] ~= 'pending' and not d[13] then return false end
  if has_gone and not d[13] and d[6] ~= 'test' and is_disabled(ep, d[17]) then
    bury(id, ep, 'disabled', retention)
    return false
  end
  batch[#batch + 1] = id
  d[10], d[11] = process .. ':' .. sequence .. ':' .. #batch, (tonumber(d[11]) or 0) + 1
  redis.call('HSET', key('d', id), 'claim', d[10], 'n', d[11])
  hand_out(id, d)
  return true
end

local function take_from(set, ep, at_most)
  local source = key('ep', ep, set)
  local due = redis.call('ZRANGEBYSCORE', source, '-inf', now, 'LIMIT', 0, at_most)
  if #due == 0 then return 0 end
  redis.call('ZREM', source, unpack(due))
  local has_gone = redis.call('EXISTS', key('ep', ep, 'gone')) == 1
  local held = {}
  for _, id in ipairs(due) do
    if take(id, ep, has_gone) then
      held[#held + 1] = now + lease
      held[#held + 1] = id
    end
  end
  if #held > 0 then redis.call('ZADD', key('ep', ep, 'inflight'), unpack(held)) end
  return #held / 2
end

-- How many attempts may begin: as the endpoint's own limit, breaker and rate have it, and unless that is none, as its
-- host has; and how many of them with a replay.
local function room(ep, e)
  local open_until = math.max(tonumber(e.open_until) or 0, rate_opens(e.rate, e.tat))
  if e.paused or open_until > now then return 0 end
  local busy = redis.call('ZCARD', key('ep', ep, 'inflight'))
  local limit = limit_now(e.limit, e.failures)
  local own = math.min(limit - busy, rate_free(e.rate, e.tat))
  if own <= 0 then return 0 end
  local load = read_host(e.host)
  e.host_slots = slots_here(host_limit, load)
  return own, e.host_slots - load.total + (load.counts[ep] or 0) - busy, replays_of(limit) - busy
end

local function read_endpoint(ep)
  local e = redis.call('HMGET', key('ep', ep), 'origin', 'limit', 'failures', 'openUntil', 'paused', 'rate', 'tat',
    'unverified', 'part')
  return {host = host_of(e[1] or ''), limit = e[2], failures = e[3], open_until = e[4], paused = e[5],
    rate = slower(e[6], e[8], e[9]), tat = e[7]}
end

-- None, until all that is live had its turn.
local replays_left = 0

-- One endpoint's turn: what is lost comes back, a few that are due go out, and it queues up again: for its host, in
-- the place it had, when that is full.
local function serve(ep, at_most, set)
  reap_expired(ep)
  local e = read_endpoint(ep)
  local own, of_host, of_replays = room(ep, e)
  local got, full = 0, own > 0 and of_host <= 0
  if own > 0 and not full then
    local free = math.min(at_most, few, own, of_host)
    got = take_from('live', ep, free)
    local behind = math.min(free - got, of_replays - got, replays_left)
    if behind > 0 then
      local replayed = take_from('replay', ep, behind)
      got, replays_left = got + replayed, replays_left - replayed
    end
    rate_spend(ep, e.rate, e.tat, got)
  elseif full then
    block(e.host, ep, e.host_slots, redis.call('ZSCORE', set, ep) or turn())
  end
  redis.call('ZREM', set, ep)
  rescore(ep)
  return got, full
end

local cut_short = false

-- Gives one endpoint its turn; returns how many it got, and whether that counts as a turn.
local function give(ep, tenant, most, set)
  local got, full = serve(ep, most, set)
  taken.endpoints[ep] = (taken.endpoints[ep] or endpoint_slots) - got
  taken.tenants[tenant] = (taken.tenants[tenant] or tenant_slots) - got
  return got, not full
end

-- How many more unproven attempts a tenant may begin: it may hold as many as it leaves free, so that whoever comes
-- next finds a slot however many hosts of others hang. One that holds none may have the last.
local function unproven_part(tenant)
  local held = taken.unproven[tenant] or 0
  return math.max(held == 0 and 1 or 0, math.floor((unproven_free - held) / 2))
end

-- Endpoints in turn, as long as there are slots: the proven, or those with nothing but replays, some of which are not
-- proven. A tenant at its share is passed over while others wait, and served after them; an endpoint at its share goes
-- to the tail.
local function in_turn(name, free)
  local set = key(name)
  local passed, order, turns_given, served = {}, {}, 0, 0
  local function share_of(ep)
    local e = redis.call('HMGET', key('ep', ep), 'tenant', 'succeededAt')
    local tenant, own, is_new = e[1] or '', taken.endpoints[ep] or endpoint_slots, not is_proven(e[2])
    if is_new then own = math.min(own, unproven_free, unproven_part(tenant)) end
    return own, tenant, is_new
  end
  local function serve_one(ep, tenant, is_new, most)
    local got, is_turn = give(ep, tenant, most, set)
    free, served = free - got, served + got
    if is_new then
      taken.unproven[tenant], unproven_free = (taken.unproven[tenant] or 0) + got, unproven_free - got
    end
    if is_turn then turns_given = turns_given + 1 end
  end
  for pass = 1, PASS do
    if free <= 0 then return served end
    local ep = redis.call('ZRANGE', set, 0, 0)[1]
    if not ep then break end
    if turns_given >= SCAN or pass == PASS then
      cut_short = true
      break
    end
    local own, tenant, is_new = share_of(ep)
    local share = taken.tenants[tenant] or tenant_slots
    if own <= 0 then
      redis.call('ZADD', set, turn(), ep)
      if passed[ep] then break end
      passed[ep] = true
    elseif share <= 0 then
      if passed[ep] then break end
      passed[ep] = true
      order[#order + 1] = ep
      redis.call('ZADD', set, turn(), ep)
    else
      serve_one(ep, tenant, is_new, math.min(free, own, share))
    end
  end
  -- Nobody else waits: those at their tenant's share after all.
  for _, ep in ipairs(order) do
    if free <= 0 or turns_given >= SCAN then break end
    local own, tenant, is_new = share_of(ep)
    if own > 0 then serve_one(ep, tenant, is_new, math.min(free, own)) end
  end
  return served
end

-- Tenants in turn, and each one's unproven endpoints in turn, as long as there are slots. A tenant at its part of
-- these is left out, one at its share of all slots unless `beyond`; an endpoint at its share goes to the tail.
local function unproven_turns(free, beyond)
  local set, left_out, passed, turns_given, served = key('ready:unproven'), {}, {}, 0, 0
  for pass = 1, PASS do
    local tenant = redis.call('ZRANGE', set, 0, 0)[1]
    if not tenant or free <= 0 then break end
    if turns_given >= SCAN or pass == PASS then
      cut_short = true
      break
    end
    local queue = key('ready:unproven', tenant)
    local ep = redis.call('ZRANGE', queue, 0, 0)[1]
    local own = ep and taken.endpoints[ep] or endpoint_slots
    local most = math.min(free, own, unproven_part(tenant))
    if not beyond then most = math.min(most, taken.tenants[tenant] or tenant_slots) end
    if not ep then
      seat(tenant)
    elseif own <= 0 and not passed[ep] then
      passed[ep] = true
      redis.call('ZADD', queue, turn() + FAILED_WAITS, ep)
    elseif most <= 0 then
      redis.call('ZREM', set, tenant)
      left_out[#left_out + 1] = tenant
    else
      local got, is_turn = give(ep, tenant, most, queue)
      taken.unproven[tenant] = (taken.unproven[tenant] or 0) + got
      unproven_free, free, served = unproven_free - got, free - got, served + got
      if is_turn then
        turns_given = turns_given + 1
        redis.call('ZADD', set, 'XX', turn(), tenant)
      end
    end
  end
  for _, tenant in ipairs(left_out) do seat(tenant) end
  return served
end

local function serve_unproven(free)
  local served = unproven_turns(free, false)
  return served + unproven_turns(free - served, true)
end

-- The first suspect whose endpoint may be sent to. Each endpoint looked at goes to the tail, so that those which wait
-- for something hold up no other.
local function serve_suspect()
  local seen = {}
  for _ = 1, SUSPECT_SCAN do
    local ep = redis.call('ZRANGE', key('suspects'), 0, 0)[1]
    if not ep or seen[ep] then return 0 end
    seen[ep] = true
    redis.call('ZADD', key('suspects'), turn(), ep)
    local e = read_endpoint(ep)
    local own, of_host = room(ep, e)
    if own > 0 and of_host > 0 then
      local got = take_from('suspects', ep, 1)
      rate_spend(ep, e.rate, e.tat, got)
      if redis.call('EXISTS', key('ep', ep, 'suspects')) == 0 then redis.call('ZREM', key('suspects'), ep) end
      rescore(ep)
      if got > 0 then return got end
    end
  end
  return 0
end

local held = redis.call('HMGET', key('batch', process), 'sequence', 'ids')
heartbeat()
if held[1] == sequence then
  for at, id in ipairs(cjson.decode(held[2])) do give_again(id, at) end
  redis.call('PEXPIRE', key('batch', process), math.ceil(lease / 1000))
else
  for _, ep in ipairs(redis.call('ZRANGEBYSCORE', key('agenda'), '-inf', now, 'LIMIT', 0, SCAN)) do
    reap_expired(ep)
    rescore(ep)
  end
  local may_suspect = suspect_free > 0 and wanted > 0
  local left = wanted
  if may_suspect then left = left - serve_suspect() end
  -- The unproven come first with a quarter of what is free, so that neither kind can starve the other.
  left = left - serve_unproven(math.min(unproven_free, math.ceil(left / 4)))
  left = left - in_turn('ready:proven', left)
  left = left - serve_unproven(math.min(unproven_free, left))
  replays_left = math.min(replays_free, left)
  in_turn('ready:replay', replays_left)
  redis.call('HSET', key('batch', process), 'sequence', sequence,
    'ids', #batch == 0 and '[]' or cjson.encode(batch))
  redis.call('PEXPIRE', key('batch', process), math.ceil(lease / 1000))
end
local next_at = head_score(key('agenda'))
if #rows < wanted then
  redis.call('SET', key('sleeping'), next_at or now + 3600 * 1000000, 'PX', 60000)
end
-- What was not come to is due now. A suspect is more to come only for who may take none at the moment: who may has
-- taken what could be.
if cut_short and #rows < wanted then next_at = now end
local more = redis.call('EXISTS', key('ready:proven'), key('ready:unproven'), key('ready:replay'))
if suspect_free <= 0 then more = more + redis.call('EXISTS', key('suspects')) end
return {now, next_at or -1, rows, endpoints, more > 0 and 1 or 0}

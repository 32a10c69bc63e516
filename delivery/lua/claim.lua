#!lua flags=allow-oom
-- Gives a process deliveries to attempt, and is its heartbeat.
-- KEYS 1 partition prefix
-- ARGV 1 process, 2 sequence of this batch (rises per process and partition), 3 at most how many,
--      4 lease in µs, 5 free slots for unproven endpoints, 6 1 if the process may take a suspect,
--      7 deliveries per endpoint and turn, 8 slots of an endpoint, 9 slots of a tenant (both of this process),
--      10 JSON {"endpoints": {id: free}, "tenants": {name: free}} of those with slots taken,
--      11 dead retention in µs
-- Demands nothing. The last batch of each process is kept: the same sequence gets the same batch again.
-- Returns {now, next (µs: when something falls due, -1 never), rows, endpoints}
--   row: {delivery, claim, attempt number, hash fields, body, 1 if a suspect}
--   endpoint: {endpoint, 1 if proven, sealed secrets for v1, v1a, x-signature; nil where it has none}
-- include: bury
local process, sequence, wanted, lease = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local unproven_free, suspect_free, few = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local endpoint_slots, tenant_slots = tonumber(ARGV[8]), tonumber(ARGV[9])
local taken, retention = cjson.decode(ARGV[10]), tonumber(ARGV[11])
local SUSPECT_AFTER, POISON_AFTER = 2, 5
local HEARTBEAT_LOST = 10 * 1000000
local QUIET_GAP = 5 * 1000000
local SCAN, PASS = 64, 512

-- When nobody swept for a while the store was away, and leases of healthy processes ran out unrenewed: wait
-- one whole lease before any is taken for lost.
local function heartbeat()
  local last = tonumber(redis.call('GET', key('swept')) or now)
  redis.call('SET', key('swept'), now)
  if now - last > QUIET_GAP then
    quiet_until = now + lease
    redis.call('SET', key('quiet'), quiet_until, 'PX', math.ceil(lease / 1000))
  end
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
    redis.call('ZADD', key('suspects'), now, id)
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
  'manual', 'scheme', 'traceparent'}
local rows, endpoints, seen = {}, {}, {}

local function hand_out(id)
  local d = redis.call('HMGET', key('d', id), unpack(ROW))
  local ep = d[1]
  if not ep or not d[10] then return end
  if d[13] then d[6] = 'manual' end
  if not seen[ep] then
    seen[ep] = true
    local e = redis.call('HMGET', key('ep', ep), 'succeededAt', 'secret:v1', 'secret:v1a', 'secret:x-signature')
    endpoints[#endpoints + 1] = {ep, is_proven(e[1]) and 1 or 0, e[2], e[3], e[4]}
  end
  local suspect = (tonumber(d[12]) or 0) >= SUSPECT_AFTER and 1 or 0
  rows[#rows + 1] = {id, d[10], d[11], d, redis.call('GET', key('d', id, 'body')) or '', suspect}
end

-- Its holder counts the lease from the request that is answered, not from the one whose reply was lost.
local function give_again(id, at)
  local d = redis.call('HMGET', key('d', id), 'ep', 'claim')
  if d[2] ~= process .. ':' .. sequence .. ':' .. at then return end
  redis.call('ZADD', key('ep', d[1], 'inflight'), 'XX', now + lease, id)
  rescore(d[1])
  hand_out(id)
end

local batch = {}
-- Waiting -> held under a claim. False when there was nothing to hold. What a person asked for, a test included,
-- goes out even to a URL that answered 410: that is the way to see whether it still does.
local function take(id, ep, source)
  redis.call('ZREM', source, id)
  local d = redis.call('HMGET', key('d', id), 'state', 'urlHash', 'manual', 'trigger')
  if d[1] ~= 'pending' and not d[3] then return false end
  if not d[3] and d[4] ~= 'test' and redis.call('SISMEMBER', key('ep', ep, 'gone'), d[2]) == 1 then
    bury(id, ep, 'disabled', retention)
    return false
  end
  batch[#batch + 1] = id
  redis.call('ZADD', key('ep', ep, 'inflight'), now + lease, id)
  redis.call('HSET', key('d', id), 'claim', process .. ':' .. sequence .. ':' .. #batch)
  redis.call('HINCRBY', key('d', id), 'n', 1)
  return true
end

local function take_from(set, ep, at_most)
  local source, got = key('ep', ep, set), 0
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', source, '-inf', now, 'LIMIT', 0, at_most)) do
    if take(id, ep, source) then got = got + 1 end
  end
  return got
end

-- One endpoint's turn: what is lost comes back, a few that are due go out, and it queues up again.
local function serve(ep, at_most)
  reap_expired(ep)
  local e = redis.call('HMGET', key('ep', ep), 'limit', 'failures', 'openUntil', 'paused')
  local limit = breaker_open(e[2]) and 1 or tonumber(e[1]) or 1
  local free = math.min(at_most, few, limit - redis.call('ZCARD', key('ep', ep, 'inflight')))
  local got = 0
  if free > 0 and not e[4] and (tonumber(e[3]) or 0) <= now then
    got = take_from('live', ep, free)
    if got < free then got = got + take_from('replay', ep, free - got) end
  end
  redis.call('ZREM', key('ready:proven'), ep)
  redis.call('ZREM', key('ready:unproven'), ep)
  rescore(ep)
  return got
end

-- Endpoints in turn, as long as there are slots. A tenant at its share is passed over while others wait, and
-- served after them; an endpoint at its share goes to the tail.
local function serve_ready(set, free)
  local passed, order, turns_given, served = {}, {}, 0, 0
  local function give(ep, most, own, share)
    local got = serve(ep, most)
    taken.endpoints[ep], taken.tenants[redis.call('HGET', key('ep', ep), 'tenant') or ''] = own - got, share - got
    free, served, turns_given = free - got, served + got, turns_given + 1
  end
  for _ = 1, PASS do
    if free <= 0 then return served end
    if turns_given >= SCAN then break end
    local ep = redis.call('ZRANGE', set, 0, 0)[1]
    if not ep then break end
    local tenant = redis.call('HGET', key('ep', ep), 'tenant') or ''
    local own = taken.endpoints[ep] or endpoint_slots
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
      local most = math.min(free, own)
      if share > 0 then most = math.min(most, share) end
      give(ep, most, own, share)
    end
  end
  -- Nobody else waits: those at their tenant's share after all.
  for _, ep in ipairs(order) do
    if free <= 0 or turns_given >= SCAN then break end
    local own = taken.endpoints[ep] or endpoint_slots
    local share = taken.tenants[redis.call('HGET', key('ep', ep), 'tenant') or ''] or tenant_slots
    if own > 0 then give(ep, math.min(free, own), own, share) end
  end
  return served
end

local function serve_suspect()
  local id = redis.call('ZRANGE', key('suspects'), 0, 0)[1]
  if not id then return end
  local ep = redis.call('HGET', key('d', id), 'ep')
  if not ep then
    redis.call('ZREM', key('suspects'), id)
  elseif take(id, ep, key('suspects')) then
    rescore(ep)
  end
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
  if suspect_free > 0 and wanted > 0 then serve_suspect() end
  local room = wanted - #batch
  -- The unproven come first with a quarter of what is free, so that neither kind can starve the other.
  local unproven = serve_ready(key('ready:unproven'), math.min(unproven_free, math.ceil(room / 4)))
  local proven = serve_ready(key('ready:proven'), room - unproven)
  serve_ready(key('ready:unproven'), math.min(room - unproven - proven, unproven_free - unproven))
  for _, id in ipairs(batch) do hand_out(id) end
  redis.call('HSET', key('batch', process), 'sequence', sequence,
    'ids', #batch == 0 and '[]' or cjson.encode(batch))
  redis.call('PEXPIRE', key('batch', process), math.ceil(lease / 1000))
end
local next_at = head_score(key('agenda'))
if #rows < wanted then
  redis.call('SET', key('sleeping'), next_at or now + 3600 * 1000000, 'PX', 60000)
end
local more = redis.call('EXISTS', key('ready:proven'), key('ready:unproven'), key('suspects'))
return {now, next_at or -1, rows, endpoints, more}

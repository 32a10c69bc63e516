#!lua flags=allow-oom
-- A batch of a replay. dead -> pending: attempts begin anew under the same identifier, behind live traffic; history
-- stays. Or dead -> gone: only how it ended is remembered.
-- KEYS 1 partition prefix
-- ARGV 1 replay, 2 died at and 3 identifier: the place it is at, 4 and 5: the place it has come to, 6 1 if nothing is
--      beyond it else 0, 7 counters as JSON, 8 action (replay, purge), 9 tenant, 10 died before in µs, 11 endpoint that
--      they go to from now on or '', 12 hash of the URL there or '', 13 µs for which the end of a purged one is
--      remembered, then for each: delivery, sealed URL there or ''
-- Demands that the replay is at that place; of each delivery `dead`, of this tenant, since before that instant, and to
-- be replayed an endpoint that was not deleted.
-- Returns {1 done, 2 done before (the script ran twice) or 0 elsewhere, the state each was in or why it was left}
-- include: bury
local replay, action, tenant, died_before = ARGV[1], ARGV[8], ARGV[9], tonumber(ARGV[10])
local endpoint, url_hash, ends_for = ARGV[11], ARGV[12], tonumber(ARGV[13])
local FIXED = 13
local DONE = {replay = 'replayed', purge = 'purged'}

-- How long an endpoint has been paused in all, looked up once; false for one that is not there.
local paused = {}

local function paused_by(ep)
  if paused[ep] == nil then
    local e = redis.call('HMGET', key('ep', ep), 'origin', 'paused', 'pausedFor')
    paused[ep] = e[1] and paused_total(e[2], e[3])
  end
  return paused[ep]
end

-- Why a delivery is left alone; nil when it is not.
local function left(id, d)
  -- A test is no letter.
  if not d[1] or d[4] ~= tenant or d[7] == 'test' then return 'unknown' end
  if d[1] ~= 'dead' then return d[1] end
  if tonumber(d[5]) >= died_before then return 'died_later' end
  -- Its claim is known to the endpoint that it is leaving.
  if d[3] and d[6] and (endpoint ~= '' or action == 'purge') then return 'attempted' end
  if action == 'replay' and not paused_by(endpoint ~= '' and endpoint or d[2]) then return 'endpoint_deleted' end
end

local actions = {}

function actions.replay(id, d, url)
  local hash, ep = key('d', id), endpoint ~= '' and endpoint or d[2]
  redis.call('HDEL', hash, 'reason', 'endedAt', 'used', 'step', 'lost', 'manual', 'keepUntil')
  redis.call('HSET', hash, 'state', 'pending', 'trigger', 'replay', 'replay', replay, 'bornAt', now, 'nextAt', now,
    'pausedBase', paused_by(ep))
  redis.call('PERSIST', hash)
  redis.call('PERSIST', key('d', id, 'body'))
  -- An attempt that a person asked for, and that is under way, is the first of those that begin now.
  if d[3] and d[6] then return ep end
  -- Nothing that is dead waits anywhere but for an attempt by hand.
  if d[3] then
    unschedule(id, d[2])
    rescore(d[2])
  end
  if endpoint ~= '' then redis.call('HSET', hash, 'ep', ep, 'url', url, 'urlHash', url_hash) end
  redis.call('ZADD', key('ep', ep, 'replay'), now, id)
  return ep
end

function actions.purge(id, d)
  if d[3] then unschedule(id, d[2]) end
  note_end(id, d[1], d[8], d[5], ends_for)
  redis.call('UNLINK', key('d', id), key('d', id, 'body'))
  return d[2]
end

local result = advance(unpack(ARGV, 1, 7))
if result ~= 1 then return {result, {}} end
local states, touched, counts = {}, {}, {}
for at = FIXED + 1, #ARGV, 2 do
  local id = ARGV[at]
  local d = fields_of(id, {'state', 'ep', 'manual', 'tenant', 'endedAt', 'claim', 'trigger', 'createdAt'})
  local why = left(id, d)
  local name = why and 'skip:' .. why or DONE[action]
  counts[name] = (counts[name] or 0) + 1
  if not why then
    exhume(id)
    touched[actions[action](id, d, ARGV[at + 1])] = true
  end
  states[#states + 1] = why or 'dead'
end
for name, number in pairs(counts) do replay_count(replay, name, number) end
for ep in pairs(touched) do rescore(ep) end
announce()
return {1, states}

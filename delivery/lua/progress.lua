-- include: base
-- Fragment: how far a replay has come in this partition. What it is, `rp:<r>`, is in its own partition alone.
--   rp:<r>:part      hash: died and id (the place it has come to), done, plan (a batch that is being run), and
--                    counters: looked, matched, replayed, purged, attempted, delivered, dead, erased,
--                    skip:<why>, reason:<reason>
--   rp:<r>:failures  list of the last failures, newest first, as JSON
--   rp:<r>:ids       zset of the identifiers it was asked for by name
-- `stats` has the same of all replays together: replay:<outcome>, see `notice`.
-- A delivery that was replayed names its replay in `replay`, with a mark once its first attempt is over.
local PART_LIFE = 62 * 86400 * 1000
local FAILURES_KEPT = 10
local SEEN = '!'

local OUTCOMES = {replayed = true, purged = true, skipped = true, delivered = true, dead = true, erased = true}

local function replay_count(replay, name, by)
  redis.call('HINCRBY', key('rp', replay, 'part'), name, by or 1)
  local outcome = string.sub(name, 1, 5) == 'skip:' and 'skipped' or name
  if OUTCOMES[outcome] then redis.call('HINCRBY', key('stats'), 'replay:' .. outcome, by or 1) end
end

-- From one place to a later one, once: 1 now, 2 before (the script ran twice), 0 it is elsewhere.
local function advance(replay, from_died, from_id, to_died, to_id, done, counts)
  local part = key('rp', replay, 'part')
  local at = redis.call('HMGET', part, 'died', 'id', 'done')
  local died, id, was_done = at[1] or '0', at[2] or '', at[3] or '0'
  if died == to_died and id == to_id and was_done == done then return 2 end
  if was_done == '1' or died ~= from_died or id ~= from_id then return 0 end
  redis.call('HSET', part, 'died', to_died, 'id', to_id, 'done', done)
  redis.call('HDEL', part, 'plan')
  for name, by in pairs(cjson.decode(counts)) do replay_count(replay, name, by) end
  redis.call('PEXPIRE', part, PART_LIFE)
  return 1
end

local function replay_failed(replay, failure)
  local failures = key('rp', replay, 'failures')
  -- As text: a number this large would lose its last digits in JSON.
  failure.at = string.format('%.0f', now)
  redis.call('LPUSH', failures, cjson.encode(failure))
  redis.call('LTRIM', failures, 0, FAILURES_KEPT - 1)
  redis.call('PEXPIRE', failures, PART_LIFE)
end

-- The first attempt of a replayed delivery is over.
local function replay_seen(id, mark)
  if string.sub(mark, -1) == SEEN then return string.sub(mark, 1, -2), false end
  replay_count(mark, 'attempted')
  redis.call('HSET', key('d', id), 'replay', mark .. SEEN)
  return mark, true
end

-- A replayed delivery ended: delivered, dead, or erased with its job.
local function replay_over(id, how, reason)
  local mark = redis.call('HGET', key('d', id), 'replay')
  if not mark then return end
  local replay = replay_seen(id, mark)
  replay_count(replay, how)
  if how == 'dead' then replay_failed(replay, {id = id, reason = reason}) end
  redis.call('HDEL', key('d', id), 'replay')
end

-- What an attempt says of the replay that led to it. One that was set aside before anything was sent says nothing.
local function replay_attempted(id, mark, verb, is_aside, status, record)
  if is_aside then return end
  local replay, is_first = replay_seen(id, mark)
  if verb == 'delivered' then
    replay_over(id, 'delivered')
  elseif is_first then
    local said = cjson.decode(record)
    replay_failed(replay, {id = id, outcome = said.outcome, status = tonumber(status)})
  end
end

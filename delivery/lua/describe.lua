-- include: endpoint
-- include: gone
-- Fragment: an endpoint as people see it: its hash, how many are being attempted, how many wait, whether its breaker
-- is open, at most so many of its disabled URLs: hash, entry, ..., and when it was so.
local function describe(id, most)
  local hash = redis.call('HGETALL', key('ep', id))
  if #hash == 0 then return false end
  local waiting = 0
  for _, queue in ipairs({'live', 'replay', 'suspects'}) do
    waiting = waiting + redis.call('ZCARD', key('ep', id, queue))
  end
  local disabled = most > 0 and redis.call('HGETALL', key('ep', id, 'gone')) or {}
  for at = #disabled, 2 * most + 1, -1 do disabled[at] = nil end
  return {
    id, hash, redis.call('ZCARD', key('ep', id, 'inflight')), waiting,
    breaker_open(redis.call('HGET', key('ep', id), 'failures')) and 1 or 0, disabled, now,
  }
end

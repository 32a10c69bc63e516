#!lua flags=allow-oom
-- Chooses jobs to tell the broker of. They stay in the outbox, as rung, until an actor claims them.
-- KEYS 1 partition prefix
-- ARGV 1 most jobs that may be rung here, 2 ring again after µs, 3 and at most after µs,
--      4 1 if rung jobs that are overdue may be told again
-- Demands pending jobs.
-- Returns {jobs to ring, how many are rung here, how many wait behind them, µs until a rung job is due again
--          or a later one falls due, -1 if never}
-- include: job
local window, again, again_most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local WEIGHTS = {'high', 'normal', 'high', 'normal', 'high', 'low', 'high', 'normal', 'high'}
local AT_ONCE = 256
local jobs = {}

local function ring(id, came)
  if redis.call('EXISTS', key('j', id)) == 0 then
    redis.call('ZREM', key('rung'), id)
    return
  end
  if came then redis.call('HSET', key('j', id), 'came', came) end
  local rings = redis.call('HINCRBY', key('j', id), 'rings', 1)
  redis.call('ZADD', key('rung'), now + math.min(again * 2 ^ math.min(rings - 1, 20), again_most), id)
  jobs[#jobs + 1] = id
end

-- later -> outbox
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('later'), '-inf', now, 'LIMIT', 0, AT_ONCE)) do
  redis.call('ZREM', key('later'), id)
  local job = redis.call('HMGET', key('j', id), 'tenant', 'priority')
  if job[1] then
    redis.call('HDEL', key('j', id), 'nextRunAt')
    outbox_push(id, job[1], job[2], now)
  end
end

if ARGV[4] == '1' then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('rung'), '-inf', now, 'LIMIT', 0, AT_ONCE)) do ring(id) end
end

local function chosen_priority()
  local wanted = WEIGHTS[redis.call('INCR', key('ob:turn')) % #WEIGHTS + 1]
  if redis.call('EXISTS', key('ob', wanted)) == 1 then return wanted end
  for _, priority in ipairs(PRIORITIES) do
    if redis.call('EXISTS', key('ob', priority)) == 1 then return priority end
  end
end

local free = math.min(window - redis.call('ZCARD', key('rung')), AT_ONCE)
for _ = 1, free do
  local priority = chosen_priority()
  if not priority then break end
  local tenant = redis.call('ZRANGE', key('ob', priority), 0, 0)[1]
  local head = redis.call('ZRANGE', key('ob', priority, tenant), 0, 0, 'WITHSCORES')
  if head[1] then
    redis.call('ZREM', key('ob', priority, tenant), head[1])
    ring(head[1], head[2])
  end
  if redis.call('EXISTS', key('ob', priority, tenant)) == 1 then
    redis.call('ZADD', key('ob', priority), turn(), tenant)
  else
    redis.call('ZREM', key('ob', priority), tenant)
  end
end

local waiting = 0
for _, priority in ipairs(PRIORITIES) do waiting = waiting + redis.call('ZCARD', key('ob', priority)) end
-- One that must not be told again now is looked at with the next round.
local rung_next, later_next = ARGV[4] == '1' and head_score(key('rung')) or nil, head_score(key('later'))
local due = rung_next and later_next and math.min(rung_next, later_next) or rung_next or later_next
return {jobs, redis.call('ZCARD', key('rung')), waiting, due and math.max(0, due - now) or -1}

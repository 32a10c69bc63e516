#!lua flags=no-writes,allow-oom
-- What can be counted of a partition's jobs, in bounded work.
-- KEYS 1 partition prefix
-- ARGV 1 at most how many tenants of a priority, and how many rung jobs, are looked at
-- Returns {for each priority: {jobs that wait, µs that the oldest waits}; jobs rung; µs that the first of those that
--          wait for an instant is late; dead letters; counts by status: name, value, ...; counters: name, value, ...}
-- include: job
local at_most = tonumber(ARGV[1])
local waits, oldest = {}, {}
for _, priority in ipairs(PRIORITIES) do
  waits[priority], oldest[priority] = 0, now
  for _, tenant in ipairs(redis.call('ZRANGE', key('ob', priority), 0, at_most - 1)) do
    waits[priority] = waits[priority] + redis.call('ZCARD', key('ob', priority, tenant))
    oldest[priority] = math.min(oldest[priority], head_score(key('ob', priority, tenant)) or now)
  end
end
-- Workers were told of these, and none has claimed them: they wait too.
for _, id in ipairs(redis.call('ZRANGE', key('rung'), 0, at_most - 1)) do
  local job = redis.call('HMGET', key('j', id), 'priority', 'came')
  if job[1] then
    waits[job[1]] = waits[job[1]] + 1
    oldest[job[1]] = math.min(oldest[job[1]], tonumber(job[2]) or now)
  end
end
local by_priority = {}
for at, priority in ipairs(PRIORITIES) do by_priority[at] = {waits[priority], now - oldest[priority]} end
return {
  by_priority, redis.call('ZCARD', key('rung')), math.max(0, now - (head_score(key('later')) or now)),
  redis.call('ZCARD', key('failed')), redis.call('HGETALL', key('counts')), redis.call('HGETALL', key('stats:jobs')),
}

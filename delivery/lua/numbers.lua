#!lua flags=no-writes,allow-oom
-- What can be counted of a partition's deliveries, each in a step or a few.
-- KEYS 1 partition prefix
-- Returns {endpoints by place: ready and proven, ready and unproven, in the agenda; open breakers; suspects; dead
--          letters; notices that wait; processes heard of lately; µs that the endpoint whose turn is next has waited
--          for it; counters: name, value, ...}
-- include: base
local function size(name)
  return redis.call('ZCARD', key(name))
end

local heard_since = now - 10 * 1000000
local lag = 0
for _, set in ipairs({'ready:proven', 'ready:unproven', 'agenda'}) do
  lag = math.max(lag, now - (head_score(key(set)) or now))
end
return {
  size('ready:proven'), size('ready:unproven'), size('agenda'), size('breakers'), size('suspects'), size('dead'),
  redis.call('LLEN', key('operator:notices')), redis.call('ZCOUNT', key('procs'), heard_since, '+inf'), lag,
  redis.call('HGETALL', key('stats')),
}

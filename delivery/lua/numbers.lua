#!lua flags=no-writes,allow-oom
-- What can be counted of a partition's deliveries, each in a step or a few.
-- KEYS 1 partition prefix
-- ARGV 1 at most how many running replays of a kind are named
-- Returns {endpoints by place: ready and proven, ready and unproven, ready with nothing but replays, in the agenda; open
--          breakers; suspects; dead letters; notices that wait; processes heard of lately; µs that whoever's turn is
--          next has waited for it; counters: name, value, ...; {kind, replays that run, {replay, dead letters it has
--          to look at} for those whose turn is next} for each kind}
-- include: base
local at_most = tonumber(ARGV[1])

local function size(...)
  return redis.call('ZCARD', key(...))
end

-- Of no more than a thousand tenants.
local unproven = 0
for _, tenant in ipairs(redis.call('ZRANGE', key('ready:unproven'), 0, 999)) do
  unproven = unproven + size('ready:unproven', tenant)
end

local heard_since = now - 10 * 1000000
local lag = 0
-- What is replayed waits for as long as what is live takes all there is.
for _, set in ipairs({'ready:proven', 'ready:unproven', 'agenda'}) do
  lag = math.max(lag, now - (head_score(key(set)) or now))
end

local function replays()
  local found = {}
  for _, kind in ipairs(redis.call('SMEMBERS', key('replay:kinds'))) do
    local next_ones = {}
    for _, id in ipairs(redis.call('ZRANGE', key('replaying', kind), 0, at_most - 1)) do
      local definition = redis.call('HGET', key('rp', id), 'definition')
      if definition then next_ones[#next_ones + 1] = {id, cjson.decode(definition).total} end
    end
    found[#found + 1] = {kind, size('replaying', kind), next_ones}
  end
  return found
end

return {
  size('ready:proven'), unproven, size('ready:replay'), size('agenda'), size('breakers'),
  size('suspects'), size('dead'),
  redis.call('LLEN', key('operator:notices')), redis.call('ZCOUNT', key('procs'), heard_since, '+inf'), lag,
  redis.call('HGETALL', key('stats')), replays(),
}

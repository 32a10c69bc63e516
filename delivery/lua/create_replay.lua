#!lua flags=allow-oom
-- nothing -> running
-- KEYS 1 partition prefix
-- ARGV 1 replay, 2 tenant, 3 kind, 4 definition, 5 sealed URL or '', 6 how many of a tenant are kept here
-- Demands nothing: a replay that exists stays as it is. The oldest that ended makes room for a new one.
-- Returns {1, its hash}, or {0} when all that are kept still run
-- include: replaying
local id, tenant, kind, kept = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[6])
local hash, index = key('rp', id), key('replays', tenant)

local function make_room()
  for _, old in ipairs(redis.call('ZRANGE', index, 0, -1)) do
    if redis.call('ZCARD', index) < kept then return true end
    if redis.call('HGET', key('rp', old), 'state') ~= 'running' then
      redis.call('ZREM', index, old)
      redis.call('DEL', key('rp', old))
    end
  end
  return redis.call('ZCARD', index) < kept
end

if redis.call('EXISTS', hash) == 0 then
  if not make_room() then return {0} end
  redis.call('HSET', hash, 'tenant', tenant, 'kind', kind, 'definition', ARGV[4],
    'state', 'running', 'createdAt', now, 'updatedAt', now, 'diedBefore', now)
  if ARGV[5] ~= '' then redis.call('HSET', hash, 'toUrl', ARGV[5]) end
  redis.call('ZADD', index, now, id)
  redis.call('ZADD', key('replaying', kind), now, id)
  redis.call('SADD', key('replay:kinds'), kind)
  wake_replays(kind)
end
return {1, redis.call('HGETALL', hash)}

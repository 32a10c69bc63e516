-- include: base
-- Fragment: an endpoint as people see it: its hash, how many are being attempted, how many wait.
local function describe(id)
  local hash = redis.call('HGETALL', key('ep', id))
  if #hash == 0 then return false end
  return {
    id, hash, redis.call('ZCARD', key('ep', id, 'inflight')),
    redis.call('ZCARD', key('ep', id, 'live')) + redis.call('ZCARD', key('ep', id, 'replay')),
  }
end

-- include: endpoint
-- Fragment: an endpoint exists from its first use on; its secret is the one it was first given.
local function register(id, tenant, origin, secret, limit)
  if redis.call('HSETNX', key('ep', id), 'secret', secret) == 0 then return 0 end
  redis.call('HSET', key('ep', id), 'tenant', tenant, 'origin', origin, 'createdAt', now, 'limit', limit)
  redis.call('SADD', key('eps', tenant), id)
  return 1
end

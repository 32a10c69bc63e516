-- include: endpoint
-- Fragment: an endpoint exists from its first use on; its secret for a scheme is the one it was first given.
local function register(id, tenant, origin, secret, limit, scheme, scheme_secret)
  if scheme_secret ~= '' then redis.call('HSETNX', key('ep', id), 'secret:' .. scheme, scheme_secret) end
  if redis.call('HSETNX', key('ep', id), 'secret:v1', secret) == 0 then return 0 end
  redis.call('HSET', key('ep', id), 'tenant', tenant, 'origin', origin, 'createdAt', now, 'limit', limit)
  redis.call('SADD', key('eps', tenant), id)
  return 1
end

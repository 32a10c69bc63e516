-- include: endpoint
-- Fragment: an endpoint exists from its first use on; its secret for a scheme is the one it was first given.

-- Whether the tenant has as many endpoints as it may, and this would be one more. Counted in this partition.
local function too_many(id, tenant, at_most)
  return redis.call('SCARD', key('eps', tenant)) >= at_most and redis.call('EXISTS', key('ep', id)) == 0
end

local function register(id, tenant, origin, secret, limit, scheme, scheme_secret)
  if scheme_secret ~= '' then redis.call('HSETNX', key('ep', id), 'secret:' .. scheme, scheme_secret) end
  if redis.call('HSETNX', key('ep', id), 'secret:v1', secret) == 0 then return 0 end
  redis.call('HSET', key('ep', id), 'tenant', tenant, 'origin', origin, 'createdAt', now, 'limit', limit)
  redis.call('SADD', key('eps', tenant), id)
  return 1
end

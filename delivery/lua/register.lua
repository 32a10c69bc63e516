-- include: endpoint
-- include: told
-- Fragment: an endpoint exists from its first use on; its secret for a scheme is the one it was first given.

-- Whether the tenant has as many endpoints as it may, and this would be one more. Counted in this partition.
local function too_many(id, tenant, at_most)
  return redis.call('SCARD', key('eps', tenant)) >= at_most and redis.call('EXISTS', key('ep', id)) == 0
end

-- An endpoint that is not verified gets as many attempts a second as whoever uses it now says: 0 for any number, ''
-- to leave it as it is.
local function hold(id, unverified)
  if not unverified or unverified == '' then return end
  local e = redis.call('HMGET', key('ep', id), 'verifiedAt', 'unverified')
  local wanted = not e[1] and unverified ~= '0' and unverified
  if wanted == e[2] then return end
  redis.call('HDEL', key('ep', id), 'unverified', 'tat')
  if wanted then redis.call('HSET', key('ep', id), 'unverified', wanted) end
  tell_mirrors(id)
  rescore(id)
end

local function register(id, tenant, origin, secret, limit, scheme, scheme_secret, unverified)
  if scheme_secret ~= '' then redis.call('HSETNX', key('ep', id), 'secret:' .. scheme, scheme_secret) end
  local made = redis.call('HSETNX', key('ep', id), 'secret:v1', secret)
  if made == 1 then
    redis.call('HSET', key('ep', id), 'tenant', tenant, 'origin', origin, 'createdAt', now, 'limit', limit)
    redis.call('SADD', key('eps', tenant), id)
  end
  hold(id, unverified)
  return made
end

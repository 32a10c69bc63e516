-- include: delivery/base
-- Fragment: who has keys. Keys that belong to no partition:
--   apikey:<digest>     hash: an API key
--   apikeyids           hash: digests of API keys, by identifier
--   apikeys             zset of identifiers of API keys, by when they were made
--   apikeys:<tenant>    the same, of one tenant
--   tenant:<tenant>     hash: name, createdAt
--   tenants             zset of tenants, by when they were made
local function make_tenant(id, name)
  if redis.call('HSETNX', key('tenant', id), 'createdAt', now) == 0 then return 0 end
  redis.call('HSET', key('tenant', id), 'name', name)
  redis.call('ZADD', key('tenants'), now, id)
  return 1
end

-- Members of an index after a place, in the order of (score, member), and whether there are more.
local function page_after(index, score, member, limit)
  local found, offset, PAGE = {}, 0, 200
  while true do
    local page = redis.call('ZRANGEBYSCORE', index, score, '+inf', 'WITHSCORES', 'LIMIT', offset, PAGE)
    offset = offset + PAGE
    for at = 1, #page, 2 do
      if member == '' or page[at + 1] ~= score or page[at] > member then
        if #found >= limit then return found, 1 end
        found[#found + 1] = page[at]
      end
    end
    if #page < 2 * PAGE then return found, 0 end
  end
end

-- include: base
-- Fragment: the indexes of dead letters, by when they died: `dead` of all tenants, `dead:<tenant>` of one.
local function list_dead(id, tenant, at)
  redis.call('ZADD', key('dead'), at, id)
  redis.call('ZADD', key('dead', tenant), at, id)
end

local function unlist_dead(id, tenant)
  redis.call('ZREM', key('dead'), id)
  redis.call('ZREM', key('dead', tenant), id)
end

-- include: delivery/base
-- Fragment: bytes kept outside the store. Key of the partition:
--   space   hash: how many, by tenant: files that were uploaded, what jobs were given, what ended jobs made
local function take_space(tenant, bytes)
  bytes = tonumber(bytes) or 0
  if bytes ~= 0 and redis.call('HINCRBY', key('space'), tenant, bytes) <= 0 then
    redis.call('HDEL', key('space'), tenant)
  end
end

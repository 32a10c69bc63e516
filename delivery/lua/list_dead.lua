#!lua flags=no-writes,allow-oom
-- Dead letters, oldest first, from a place on.
-- KEYS 1 partition prefix
-- ARGV 1 died at or after this instant (µs), 2 delivery to go on after at that instant or '', 3 at most how many
-- Returns {died at, delivery, its hash, origin of its endpoint} for each
-- include: base
local found, limit, offset, PAGE = {}, tonumber(ARGV[3]), 0, 256
while #found < limit do
  local index = redis.call('ZRANGEBYSCORE', key('dead'), ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', offset, PAGE)
  if #index == 0 then break end
  offset = offset + PAGE
  for at = 1, #index, 2 do
    local id, died = index[at], index[at + 1]
    if #found >= limit then break end
    if ARGV[2] == '' or tonumber(died) > tonumber(ARGV[1]) or id > ARGV[2] then
      local hash = redis.call('HGETALL', key('d', id))
      if #hash > 0 then
        found[#found + 1] = {died, id, hash, redis.call('HGET', key('ep', redis.call('HGET', key('d', id), 'ep')), 'origin') or ''}
      end
    end
  end
end
return found

#!lua flags=allow-oom
-- Files past their time are known no more; their bytes are the caller's to delete.
-- KEYS 1 partition prefix
-- ARGV 1 at most how many
-- Demands nothing. One whose bytes are not reported as deleted is found again after a while.
-- Returns files whose bytes are to be deleted
-- include: file
local AGAIN = 60 * 1000000
local due = redis.call('ZRANGEBYSCORE', key('files'), '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
for _, id in ipairs(due) do
  local file = redis.call('HMGET', key('f', id), 'tenant', 'size')
  if file[1] then take_space(file[1], -tonumber(file[2])) end
  redis.call('DEL', key('f', id))
  redis.call('ZADD', key('files'), now + AGAIN, id)
end
return due

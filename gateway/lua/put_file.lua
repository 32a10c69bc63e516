#!lua
-- Keeps the record of an uploaded file. Refused at the memory limit: no allow-oom.
-- KEYS 1 partition prefix
-- ARGV 1 file, 2 µs until it expires unless it is used, then the file's fields: name, value, ...
-- Demands nothing: a record of this identifier that exists stays as it is.
-- Returns {now, its hash}
-- include: file
local id = ARGV[1]
if redis.call('EXISTS', key('f', id)) == 0 then
  local expires = now + tonumber(ARGV[2])
  redis.call('HSET', key('f', id), 'createdAt', now, 'expiresAt', expires, unpack(ARGV, 3))
  redis.call('ZADD', key('files'), expires, id)
  take_space(redis.call('HGET', key('f', id), 'tenant'), redis.call('HGET', key('f', id), 'size'))
end
return file_view(id)

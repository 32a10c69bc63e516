#!lua flags=allow-oom
-- Begins a file's life anew, for a job that is about to copy it.
-- KEYS 1 partition prefix
-- ARGV 1 file, 2 tenant, 3 µs until it expires unless it is used again
-- Demands a file of this tenant that has not expired.
-- Returns {now, its hash}, or nil when there is none
-- include: file
local id = ARGV[1]
local file = redis.call('HMGET', key('f', id), 'tenant', 'expiresAt')
if file[1] ~= ARGV[2] then return nil end
local expires = math.max(tonumber(file[2]), now + tonumber(ARGV[3]))
redis.call('HSET', key('f', id), 'expiresAt', expires)
redis.call('ZADD', key('files'), expires, id)
return file_view(id)

#!lua flags=allow-oom
-- Notes that the bytes of an expired file are deleted.
-- KEYS 1 partition prefix
-- ARGV 1 file
-- Demands that its record is gone.
-- Returns 1 noted now, 0 it was before, or the file has not expired
-- include: file
if redis.call('EXISTS', key('f', ARGV[1])) == 1 then return 0 end
return redis.call('ZREM', key('files'), ARGV[1])

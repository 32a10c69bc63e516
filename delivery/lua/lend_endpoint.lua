#!lua flags=allow-oom
-- Lets an endpoint have mirrors: of its rate, of the most that its limit may be, and of its host's slots they have a
-- part from now on.
-- KEYS 1 partition prefix
-- ARGV 1 endpoint, 2 in how many other partitions, 3 the part of its rate that it keeps
-- Demands nothing: it stays so until it is deleted.
-- Returns the endpoint as `describe` has it, or nil when unknown
-- include: describe
local id = ARGV[1]
local origin = redis.call('HGET', key('ep', id), 'origin')
if not origin then return nil end
redis.call('HSET', key('ep', id), 'part', ARGV[3], 'lentAt', now, 'others', ARGV[2])
keep_within(id)
redis.call('HSET', key('host', host_of(origin)), 'lent:' .. id, ARGV[2])
return describe(id, GONE_MOST)

#!lua flags=allow-oom
-- claimed -> nothing: the request was refused, and a refused request does not use up its key.
-- KEYS 1 partition prefix
-- ARGV 1 tenant, 2 hash of the key, 3 job that the caller claimed it for
-- Demands `claimed`, by this caller last: one whose claim went stale and was taken over has nothing to give back.
-- Returns 1 done, 0 it was not
-- include: delivery/base
local entry = key('idem', ARGV[1], ARGV[2])
local held = redis.call('HMGET', entry, 'by', 'state')
if held[1] ~= ARGV[3] or held[2] ~= 'claimed' then return 0 end
return redis.call('DEL', entry)

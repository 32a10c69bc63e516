#!lua flags=allow-oom
-- claimed -> created: the job of an idempotency key is kept.
-- KEYS 1 partition prefix
-- ARGV 1 tenant, 2 hash of the key, 3 job
-- Demands that the key is this job's.
-- Returns 1 done, 0 it is not
-- include: delivery/base
local entry = key('idem', ARGV[1], ARGV[2])
if redis.call('HGET', entry, 'job') ~= ARGV[3] then return 0 end
redis.call('HSET', entry, 'state', 'created')
return 1

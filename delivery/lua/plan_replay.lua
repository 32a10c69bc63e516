#!lua flags=allow-oom
-- Notes a batch that is going to be run in more than one step, so that whoever comes next can bring it to its end.
-- KEYS 1 partition prefix
-- ARGV 1 replay, 2 died at and 3 identifier: the place it is at, 4 the plan
-- Demands that it is at that place and not done there. A plan that is noted already stays.
-- Returns the plan that holds, or nil when the replay is elsewhere
-- include: progress
local part = key('rp', ARGV[1], 'part')
local at = redis.call('HMGET', part, 'died', 'id', 'done')
if at[3] == '1' or (at[1] or '0') ~= ARGV[2] or (at[2] or '') ~= ARGV[3] then return nil end
redis.call('HSETNX', part, 'plan', ARGV[4])
redis.call('PEXPIRE', part, PART_LIFE)
return redis.call('HGET', part, 'plan')

#!lua flags=allow-oom
-- running -> cancelled
-- KEYS 1 partition prefix
-- ARGV 1 replay, 2 life of an ended one in µs
-- Demands `running`; of any other state nothing changes.
-- Returns the state it is in now, or nil when unknown
-- include: replaying
local r = redis.call('HMGET', key('rp', ARGV[1]), 'state', 'kind')
if not r[1] then return nil end
if r[1] ~= 'running' then return r[1] end
end_replay(ARGV[1], r[2], 'cancelled', '', tonumber(ARGV[2]))
return 'cancelled'

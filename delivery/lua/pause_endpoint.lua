#!lua flags=allow-oom
-- Holds an endpoint's deliveries back, or lets them go again.
-- KEYS 1 partition prefix
-- ARGV 1 endpoint, 2 1 to pause, 0 to resume
-- Demands nothing: one that is paused, or not, stays so since when it is.
-- Returns the endpoint as `describe` has it, or nil when unknown
-- include: describe
local id = ARGV[1]
if redis.call('EXISTS', key('ep', id)) == 0 then return nil end
pause(id, ARGV[2] == '1')
tell_mirrors(id)
rescore(id)
announce()
return describe(id, GONE_MOST)

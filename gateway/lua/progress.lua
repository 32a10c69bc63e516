#!lua flags=allow-oom
-- Notes how far a job has come.
-- KEYS 1 partition prefix
-- ARGV 1 job, 2 claim, 3 percent, 4 message
-- Demands `processing` under this claim; else nothing changes.
-- Returns {now, revision, 1 if cancelling was asked for}, or nil: the claim is lost
-- include: job
local id = ARGV[1]
local job = redis.call('HMGET', key('j', id), 'status', 'claim', 'cancelRequested', 'progress', 'message', 'rev')
if job[1] ~= 'processing' or job[2] ~= ARGV[2] then return nil end
local rev = tonumber(job[6])
if job[4] ~= ARGV[3] or job[5] ~= ARGV[4] then rev = job_change(id, 'progress', ARGV[3], 'message', ARGV[4]) end
return {now, rev, job[3] == '1' and 1 or 0}

#!lua flags=allow-oom
-- Asks for a job to be cancelled.
-- KEYS 1 partition prefix
-- ARGV 1 job
-- Demands nothing. One that is worked on is marked, and its worker told; one that waits is the caller's to end.
-- Returns {status it is in, view}, or nil when unknown
-- include: job
local id = ARGV[1]
local job = redis.call('HMGET', key('j', id), 'status', 'claim', 'cancelRequested')
if not job[1] then return nil end
if job[1] == 'processing' then
  if job[3] ~= '1' then job_change(id, 'cancelRequested', '1') end
  redis.call('PUBLISH', key('wake:worker', string.match(job[2], '^[^:]+')), id)
end
return {job[1], job_view(id)}

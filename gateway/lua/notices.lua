#!lua flags=allow-oom
-- Finds the jobs whose results are about to go unread.
-- KEYS 1 partition prefix
-- ARGV 1 at most how many
-- Demands an ended job, not read, whose callback did not carry its results.
-- Returns {now, {job, view} for each}
-- include: job
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('notices'), '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))) do
  local job = redis.call('HMGET', key('j', id), 'completedAt', 'readAt', 'delivery', 'resultsFile')
  local told = job[3] and not job[4] and fields_of(job[3], {'state'})[1] == 'delivered'
  if not job[1] or job[2] or told then
    redis.call('ZREM', key('notices'), id)
  else
    found[#found + 1] = {id, job_view(id)}
  end
end
return {now, found}

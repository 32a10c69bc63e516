#!lua flags=no-writes,allow-oom
-- Failed jobs that were not run again, oldest first, from a place on.
-- KEYS 1 partition prefix
-- ARGV 1 failed at or after this instant (µs), 2 job to go on after at that instant or '', 3 at most how many
-- Returns {failed at, job, view} for each
-- include: job
local found, limit = {}, tonumber(ARGV[3])
local index = redis.call('ZRANGEBYSCORE', key('failed'), ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, limit + 100)
for at = 1, #index, 2 do
  if #found >= limit then break end
  local id, failed = index[at], index[at + 1]
  if ARGV[2] == '' or tonumber(failed) > tonumber(ARGV[1]) or id > ARGV[2] then
    local view = job_view(id)
    if view then found[#found + 1] = {failed, id, view} end
  end
end
return found

#!lua flags=no-writes,allow-oom
-- Failed jobs that were not run again, oldest first, from a place on.
-- KEYS 1 partition prefix
-- ARGV 1 tenant, 2 failed at and 3 job: the place to go on after, 4 at most how many
-- Returns {the jobs, failed at, job}: the other two are the last place looked at, false when nothing is beyond it
-- include: failed_job
local index = key('failed', ARGV[1])
local after_failed, after_id, limit = ARGV[2], ARGV[3], tonumber(ARGV[4])
local found, offset, PAGE, at_failed, at_id = {}, 0, 256, false, false
while true do
  local page = redis.call('ZRANGEBYSCORE', index, after_failed, '+inf', 'WITHSCORES', 'LIMIT', offset, PAGE)
  offset = offset + PAGE
  for at = 1, #page, 2 do
    local id, failed = page[at], page[at + 1]
    if after_id == '' or tonumber(failed) > tonumber(after_failed) or id > after_id then
      if #found >= limit then return {found, at_failed, at_id} end
      at_failed, at_id = failed, id
      local job = failed_job(id)
      if job then found[#found + 1] = job end
    end
  end
  if #page < 2 * PAGE then return {found, false, false} end
end

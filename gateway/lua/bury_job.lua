-- include: job
-- Fragment: an ended job -> its tombstone. What it kept outside the store is for a relay to delete.
local HAS_FILES = {'inputFile', 'files', 'resultsFile', 'artifacts', 'leftovers'}

local function bury_job(id, life)
  local job = redis.call('HMGET', key('j', id), 'status', 'tenant', 'given', 'made')
  take_space(job[2], -((tonumber(job[3]) or 0) + (tonumber(job[4]) or 0)))
  for _, name in ipairs(HAS_FILES) do
    if redis.call('HEXISTS', key('j', id), name) == 1 then redis.call('SADD', key('doomed'), id) end
  end
  unlist(id, job[2], job[1])
  redis.call('ZREM', key('jobs', job[2]), id)
  unlist_failed(id, job[2])
  for _, index in ipairs({'expiry', 'notices'}) do redis.call('ZREM', key(index), id) end
  redis.call('DEL', key('j', id))
  redis.call('HSET', tomb_key(id), id, job[1] .. ' ' .. string.format('%.0f', now) .. ' ' .. job[2])
  -- The hash lives as long as the youngest tombstone in it.
  redis.call('PEXPIRE', tomb_key(id), math.floor(life / 1000))
end

#!lua flags=no-writes,allow-oom
-- How far behind the work of a partition is.
-- KEYS 1 partition prefix
-- ARGV 1 silence in µs after which a delivery process counts as gone
-- Demands nothing.
-- Returns {age of the oldest job that waits, age of the callback due longest (µs, -1: none), live delivery processes}
-- include: outbox
local TENANTS = 100

local function oldest_job()
  local oldest
  for _, priority in ipairs(PRIORITIES) do
    for _, tenant in ipairs(redis.call('ZRANGE', key('ob', priority), 0, TENANTS - 1)) do
      local came = head_score(key('ob', priority, tenant))
      if came and (not oldest or came < oldest) then oldest = came end
    end
  end
  return oldest
end

-- An endpoint is ready from the instant on at which its next delivery was found due.
local function oldest_due()
  local oldest
  for _, set in ipairs({'ready:proven', 'ready:unproven', 'agenda'}) do
    local since = head_score(key(set))
    if since and since <= now and (not oldest or since < oldest) then oldest = since end
  end
  return oldest
end

local function age(since)
  return since and math.max(0, now - since) or -1
end

return {age(oldest_job()), age(oldest_due()), redis.call('ZCOUNT', key('procs'), now - tonumber(ARGV[1]), '+inf')}

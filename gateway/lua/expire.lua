#!lua flags=allow-oom
-- Ended jobs past their time to live become tombstones; their files are the caller's to delete.
-- KEYS 1 partition prefix
-- ARGV 1 tombstone's life in µs, 2 result's life after its callback's end in µs, 3 at most how many
-- Demands a terminal status, and no callback under way or ended less than that ago: those wait on.
-- Returns {how many were looked at, jobs whose files are to be deleted}
-- include: bury_job
local life, after_callback, at_most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local RECHECK = 60 * 1000000
-- What ended sooner than this after the job leaves no note when it is taken down before its time.
local SOON = 2 * 60 * 1000000

-- When the results may go, given how the callback stands.
local function may_go_at(delivery, expires_at, completed_at)
  if not delivery then return expires_at end
  local d = fields_of(delivery, {'state', 'endedAt'})
  if d[1] == 'pending' then return now + RECHECK end
  if not d[1] then
    d[2] = string.match(redis.call('GET', key('d', delivery, 'end')) or '', '%d+$') or completed_at + SOON
  end
  if not d[2] then return expires_at end
  return math.max(expires_at, tonumber(d[2]) + after_callback)
end

local due = redis.call('ZRANGEBYSCORE', key('expiry'), '-inf', now, 'LIMIT', 0, at_most)
for _, id in ipairs(due) do
  local job = redis.call('HMGET', key('j', id), 'status', 'delivery', 'expiresAt', 'completedAt')
  local at = job[1] and may_go_at(job[2], tonumber(job[3]), tonumber(job[4])) or now
  if not job[1] then
    redis.call('ZREM', key('expiry'), id)
  elseif at > now then
    redis.call('ZADD', key('expiry'), at, id)
    redis.call('HSET', key('j', id), 'expiresAt', at)
  else
    bury_job(id, life)
  end
end
return {#due, redis.call('SRANDMEMBER', key('doomed'), at_most)}

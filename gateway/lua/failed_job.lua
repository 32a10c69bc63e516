-- include: job
-- Fragment: a job as a list of dead letters shows it: few of its fields, and the origin of its callback. False when
-- there is nothing of it.
local FAILED = {'status', 'tenant', 'type', 'errorCode', 'error', 'completedAt', 'createdAt', 'attempt', 'maxAttempts',
  'endpoint', 'retriedAs', 'purgedAt'}

local function failed_job(id)
  local j = redis.call('HMGET', key('j', id), unpack(FAILED))
  if not j[1] then return false end
  return {id, j, j[10] and redis.call('HGET', key('ep', j[10]), 'origin') or ''}
end

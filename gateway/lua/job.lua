-- include: outbox
-- Fragment: a job's hash `j:<job>`, as `gateway/models.py` names its members, and besides: rev (rises with every
-- change), claim (who works on it), settled (who ended it), lost (leases whose process died),
-- rings (how often the broker was told), a<n> (the record of attempt n).
local function job_change(id, ...)
  redis.call('HSET', key('j', id), 'updatedAt', now, ...)
  return redis.call('HINCRBY', key('j', id), 'rev', 1)
end

-- The tombstone's hash is that of the hour in which the job was made, which its identifier names.
local function tomb_key(id)
  return key('tomb', string.sub(id, -22, -19))
end

-- How the callback of a job stands: of the delivery that its end owes, or before that of its URL.
local function callback_state(id)
  local job = redis.call('HMGET', key('j', id), 'delivery', 'endpoint', 'urlHash')
  if job[1] then return redis.call('HMGET', key('d', job[1]), 'state', 'reason', 'n', 'lastStatus', 'nextAt') end
  if job[2] and redis.call('SISMEMBER', key('ep', job[2], 'gone'), job[3]) == 1 then
    return {'dead', 'disabled', 0, false, false}
  end
  return {}
end

local function job_view(id)
  local hash = redis.call('HGETALL', key('j', id))
  if #hash == 0 then return nil end
  return {now, hash, callback_state(id)}
end

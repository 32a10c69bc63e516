-- include: outbox
-- include: delivery/gone
-- include: delivery/packed
-- include: space
-- Fragment: a job's hash `j:<job>`, as `gateway/models.py` names its members, and besides:
--   rev         rises with every change
--   claim       who works on it
--   settled     who ended it
--   released    the claim that last gave it back
--   lost        leases whose process died
--   rings       how often the broker was told of it
--   came        when it came into the outbox that it was rung from, until it is claimed
--   attemptAt   when the attempt under way began
--   readAt      when its results were first read
--   delivery    what its end owes
--   beginning   the delivery that told that it had begun
--   notice      the delivery that told that its results were about to go
--   leftovers   an attempt may have saved files that the job's end does not name
--   reaped      the claim whose lapse was seen
--   given       bytes kept outside the store that it was given
--   made        the same that its end names
--   a<n>        the record of attempt n; the last 20
-- Keys of the partition:
--   jobs:<tenant>            zset of the tenant's jobs, by when they were made
--   jobs:<tenant>:<status>   the same, of one status
--   counts                   hash: how many jobs there are, by status
--   deadlines                zset of jobs that must have begun by an instant
--   failed                   zset of failed jobs by their end: the dead letters among jobs
--   notices                  zset of ended jobs by when to tell that their results are about to go
--   durations                hash: how long completed attempts took lately, by type, in µs
--   stats:jobs               hash of counters that only rise: ended:<status>:<type>, lost (leases that ran out)
local ATTEMPTS_KEPT = 20

-- Every change is made here, so that whoever watches the job hears of it.
local function job_change(id, ...)
  redis.call('HSET', key('j', id), 'updatedAt', now, ...)
  local rev = redis.call('HINCRBY', key('j', id), 'rev', 1)
  redis.call('PUBLISH', key('watch', id), rev)
  return rev
end

local function list_failed(id, tenant, at)
  redis.call('ZADD', key('failed'), at, id)
  redis.call('ZADD', key('failed', tenant), at, id)
end

local function unlist_failed(id, tenant)
  redis.call('ZREM', key('failed'), id)
  redis.call('ZREM', key('failed', tenant), id)
end

local function unlist(id, tenant, status)
  redis.call('ZREM', key('jobs', tenant, status), id)
  redis.call('HINCRBY', key('counts'), status, -1)
end

-- Every change of status is made here, so that lists and counts agree with the jobs.
local function move(id, tenant, from, to, ...)
  if from then unlist(id, tenant, from) end
  redis.call('ZADD', key('jobs', tenant, to), redis.call('HGET', key('j', id), 'createdAt'), id)
  redis.call('HINCRBY', key('counts'), to, 1)
  return job_change(id, 'status', to, ...)
end

local function attempt_over(id, attempt, record)
  redis.call('HSET', key('j', id), 'a' .. attempt, record)
  redis.call('HDEL', key('j', id), 'a' .. (attempt - ATTEMPTS_KEPT))
end

local function attempt_failed(id, attempt, record)
  attempt_over(id, attempt, record)
  redis.call('HSET', key('j', id), 'leftovers', '1')
end

-- The tombstone's hash is that of the hour in which the job was made, which its identifier names.
local function tomb_key(id)
  return key('tomb', string.sub(id, -22, -19))
end

-- How the callback of a job stands: of the delivery that its end owes, or before that of its URL.
local function callback_state(id)
  local job = redis.call('HMGET', key('j', id), 'delivery', 'endpoint', 'urlHash')
  if job[1] then
    local d = fields_of(job[1], {'state', 'reason', 'n', 'lastStatus', 'nextAt'})
    -- One that left before its time left a note unless it was delivered at once; what is older has outlived its job.
    if not d[1] then d[1] = string.match(redis.call('GET', key('d', job[1], 'end')) or '', '^%l+') or 'delivered' end
    return d
  end
  if job[2] and is_disabled(job[2], job[3]) then
    return {'dead', 'disabled', 0, false, false}
  end
  return {}
end

local function job_view(id)
  local hash = redis.call('HGETALL', key('j', id))
  if #hash == 0 then return nil end
  local usual = redis.call('HGET', key('durations'), redis.call('HGET', key('j', id), 'type'))
  return {now, hash, callback_state(id), usual}
end

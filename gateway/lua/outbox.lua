-- include: delivery/base
-- Fragment: the outbox, which is the queue of jobs. Two levels: priorities by weight, tenants in turn.
--
-- Keys of the partition:
--   ob:<priority>            zset of tenants with jobs waiting, by turn
--   ob:<priority>:<tenant>   zset of a tenant's jobs waiting, by the instant they came
--   ob:turn                  how many jobs have been chosen, which decides the next priority
--   rung                     zset of jobs told to the broker and not claimed yet, by when to tell again
--   later                    zset of jobs that wait for an instant: a run time, or the next attempt
--   leases                   zset of jobs being worked on, by the end of their lease
--   expiry                   zset of ended jobs by the instant their results may go
--   doomed                   set of jobs whose files are still to be deleted
local PRIORITIES = {'high', 'normal', 'low'}

local function outbox_push(id, tenant, priority, came)
  redis.call('ZADD', key('ob', priority, tenant), came, id)
  redis.call('ZADD', key('ob', priority), 'NX', turn(), tenant)
end

-- Out of every place it could wait in.
local function outbox_remove(id, tenant, priority)
  redis.call('ZREM', key('rung'), id)
  redis.call('ZREM', key('later'), id)
  if redis.call('ZREM', key('ob', priority, tenant), id) == 1
    and redis.call('EXISTS', key('ob', priority, tenant)) == 0 then
    redis.call('ZREM', key('ob', priority), tenant)
  end
end

-- Whether any job waits that the broker was not told of.
local function outbox_waits()
  return redis.call('EXISTS', key('ob:high'), key('ob:normal'), key('ob:low')) > 0
end

local function wake_relay()
  redis.call('PUBLISH', key('wake:relay'), '1')
end

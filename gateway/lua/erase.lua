#!lua flags=allow-oom
-- An ended job -> its tombstone, before its time, together with the callbacks that are still owed.
-- KEYS 1 partition prefix
-- ARGV 1 job, 2 tombstone's life in µs
-- Demands a terminal status.
-- Returns the status it was in, or nil when unknown; nothing changed unless that is terminal
-- include: bury_job
-- include: delivery/bury
local id, life = ARGV[1], tonumber(ARGV[2])
local status = redis.call('HGET', key('j', id), 'status')
if not status or status == 'pending' or status == 'processing' then return status end
for _, name in ipairs({'delivery', 'notice', 'beginning'}) do
  local delivery = redis.call('HGET', key('j', id), name)
  local ep = delivery and fields_of(delivery, {'ep'})[1]
  if ep then
    unschedule(delivery, ep)
    exhume(delivery)
    replay_over(delivery, 'erased')
    redis.call('DEL', key('d', delivery), key('d', delivery, 'body'))
    rescore(ep)
  end
end
bury_job(id, life)
return status

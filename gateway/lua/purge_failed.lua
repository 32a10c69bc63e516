#!lua flags=allow-oom
-- A batch of a replay takes failed jobs off the list of dead letters; the jobs stay until they expire.
-- KEYS 1 partition prefix
-- ARGV 1 replay, 2 failed at and 3 identifier: the place it is at, 4 and 5: the place it has come to, 6 1 if nothing
--      is beyond it else 0, 7 counters as JSON, then jobs
-- Demands that the replay is at that place.
-- Returns 1 done, 2 done before (the script ran twice), 0 it is elsewhere
-- include: job
-- include: delivery/progress
local result = advance(unpack(ARGV, 1, 7))
if result ~= 1 then return result end
for at = 8, #ARGV do
  local tenant = redis.call('HGET', key('j', ARGV[at]), 'tenant')
  if tenant and redis.call('ZSCORE', key('failed', tenant), ARGV[at]) then
    unlist_failed(ARGV[at], tenant)
    redis.call('HSET', key('j', ARGV[at]), 'purgedAt', now)
    replay_count(ARGV[1], 'purged')
  else
    replay_count(ARGV[1], 'skip:retried')
  end
end
return 1

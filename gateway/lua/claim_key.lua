#!lua
-- Takes an idempotency key for a job about to be made: nothing -> claimed. Refused at the memory limit.
-- KEYS 1 partition prefix
-- ARGV 1 tenant, 2 hash of the key, 3 fingerprint of the request, 4 job, 5 µs after which a claim is stale,
--      6 life of the key in µs
-- Demands nothing. A claim that went stale is taken over under its own job, so that one job comes of it whoever
-- finishes; the same job claims again. Who claimed last is noted: only they may give the key back.
-- Returns {claimed | writing | created | conflict, job}
-- include: delivery/base
local entry = key('idem', ARGV[1], ARGV[2])
local held = redis.call('HMGET', entry, 'fingerprint', 'job', 'state', 'at')
local job, state = held[2], nil
if not held[1] then
  job, state = ARGV[4], 'claimed'
elseif held[1] ~= ARGV[3] then
  state = 'conflict'
elseif held[3] == 'created' then
  state = 'created'
elseif job == ARGV[4] or now - tonumber(held[4]) > tonumber(ARGV[5]) then
  state = 'claimed'
else
  state = 'writing'
end
if state == 'claimed' then
  redis.call('HSET', entry, 'fingerprint', ARGV[3], 'job', job, 'state', 'claimed', 'at', now,
    'by', ARGV[4])
  redis.call('PEXPIRE', entry, math.floor(tonumber(ARGV[6]) / 1000))
end
return {state, job}

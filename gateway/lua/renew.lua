#!lua flags=allow-oom
-- Renews leases.
-- KEYS 1 partition prefix
-- ARGV 1 lease in µs, then job, claim, ...
-- Demands for each `processing` under its claim.
-- Returns {now, for each: 1 renewed, 2 renewed and cancelling was asked for, 0 the claim is lost}
-- include: job
local results = {}
for at = 2, #ARGV, 2 do
  local job = redis.call('HMGET', key('j', ARGV[at]), 'status', 'claim', 'cancelRequested')
  local held = job[1] == 'processing' and job[2] == ARGV[at + 1]
  if held then redis.call('ZADD', key('leases'), now + tonumber(ARGV[1]), ARGV[at]) end
  results[#results + 1] = held and (job[3] == '1' and 2 or 1) or 0
end
return {now, results}

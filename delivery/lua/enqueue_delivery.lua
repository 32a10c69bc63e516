#!lua flags=allow-oom
-- Makes a delivery pending for an endpoint that exists.
-- KEYS 1 partition prefix
-- ARGV 1 delivery, 2 endpoint, 3 tenant, 4 sealed URL, 5 URL hash, 6 sealed headers or '', 7 tags, 8 body,
--      9 dead retention in µs, 10 scheme, 11 trace or '', 12 trigger, 13 challenge or ''
-- Demands a registered endpoint; a delivery that exists stays as it is.
-- Returns 1 made now, 0 existed already, -1 unknown endpoint
-- include: enqueue
if redis.call('EXISTS', key('ep', ARGV[2])) == 0 then return -1 end
local made = enqueue({
  id = ARGV[1], ep = ARGV[2], tenant = ARGV[3], url = ARGV[4], url_hash = ARGV[5], headers = ARGV[6],
  tags = ARGV[7], body = ARGV[8], retention = tonumber(ARGV[9]), scheme = ARGV[10], trace = ARGV[11],
  trigger = ARGV[12], challenge = ARGV[13],
})
announce()
return made

#!lua flags=allow-oom
-- Registers an endpoint.
-- KEYS 1 partition prefix
-- ARGV 1 endpoint, 2 tenant, 3 origin, 4 sealed secret for v1, 5 initial limit, 6 scheme,
--      7 sealed secret for that scheme or '', 8 at most how many of a tenant, 9 attempts a second until it is
--      verified, 0 for any number, '' to leave it
-- Demands room for one more of the tenant's. An endpoint that exists stays as it is, but for a secret that it has not
-- got yet.
-- Returns {1 if created now else 0, the endpoint as `describe` has it}, or {-1} when there are too many
-- include: register
-- include: describe
if too_many(ARGV[1], ARGV[2], tonumber(ARGV[8])) then return {-1} end
local created = register(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[9])
return {created, describe(ARGV[1], GONE_MOST)}

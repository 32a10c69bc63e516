#!lua flags=allow-oom
-- Says whom to tell of dead deliveries and disabled URLs.
-- KEYS 1 partition prefix
-- ARGV 1 the operator's endpoint, '' to tell nobody
-- Demands nothing.
-- Returns 1
-- include: base
if ARGV[1] == '' then
  redis.call('DEL', key('operator'), key('operator:notices'))
else
  redis.call('SET', key('operator'), ARGV[1])
end
return 1

-- include: delivery/base
-- Fragment: who did what. Keys that belong to no partition:
--   audit:<tenant>   zset of records, by when they were written: '<record> <what it says as JSON>'
local function record_of(member)
  return string.match(member, '^%S+')
end

-- include: dead
-- include: packed
-- Fragment: a delivery as a list of dead letters shows it: the state it is in, few of its fields, and if asked for the
-- record of its last attempt. Of a mirror's there is the endpoint that it is like. False when there is nothing of it.
local LETTER = {'state', 'tenant', 'ep', 'reason', 'endedAt', 'tags', 'createdAt', 'n', 'lastStatus', 'url'}

local function letter(id, with_last)
  local d = fields_of(id, LETTER)
  if not d[1] then return false end
  local last = with_last and d[8] and fields_of(id, {'a' .. d[8]})[1] or ''
  local e = redis.call('HMGET', key('ep', d[3]), 'origin', 'mirrorOf')
  d[3] = e[2] or d[3]
  return {id, d, e[1] or '', last}
end

-- include: dead
-- include: packed
-- Fragment: a delivery as a list of dead letters shows it: the state it is in, few of its fields, and if asked for the
-- record of its last attempt. False when there is nothing of it.
local LETTER = {'state', 'tenant', 'ep', 'reason', 'endedAt', 'tags', 'createdAt', 'n', 'lastStatus', 'url'}

local function letter(id, with_last)
  local d = fields_of(id, LETTER)
  if not d[1] then return false end
  local last = with_last and d[8] and fields_of(id, {'a' .. d[8]})[1] or ''
  return {id, d, redis.call('HGET', key('ep', d[3]), 'origin') or '', last}
end

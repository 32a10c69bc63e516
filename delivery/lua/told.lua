-- include: base
-- Fragment: what is to be told elsewhere, kept in lists of the partition until a delivery process has done so.
--
-- Keys of the partition:
--   operator:notices   what the operator is told; see `notice`
--   mirrors:news       what an endpoint and its mirrors (see mirrors.py) tell each other: `<own> <when>` when it has
--                      changed, or `<own> <hash> <entry>` of a URL that answered 410; own is the endpoint that is
--                      mirrored
local TOLD_KEPT = 1000

-- The newest thousand; returns how many there was no room for.
local function tell(list, what)
  redis.call('RPUSH', key(list), what)
  local over = redis.call('LLEN', key(list)) - TOLD_KEPT
  if over <= 0 then return 0 end
  redis.call('LTRIM', key(list), over, -1)
  return over
end

-- The endpoint that is mirrored: of a mirror the one that it is like, of one that has mirrors itself; else nil.
local function own_of(ep)
  local e = redis.call('HMGET', key('ep', ep), 'mirrorOf', 'part')
  return e[1] or e[2] and ep
end

-- What there is no room for is met again: by a 410, or at the next change. No two are alike: who has carried one
-- forgets that one only.
local function tell_mirrors(ep, url_hash, entry)
  local own = own_of(ep)
  if not own then return end
  local what = url_hash and {own, url_hash, entry} or {own, string.format('%.0f', now)}
  tell('mirrors:news', table.concat(what, ' '))
end

-- include: told
-- Fragment: what the operator is to be told, kept until a delivery process makes deliveries of it.
--
-- Keys of the partition:
--   operator           the operator's endpoint; absent where nobody is to be told
--   operator:notices   list of notices, oldest first
--   stats              hash of counters that only rise: dead:<reason> (deliveries that died), lost (leases that ran
--                      out), dropped (notices that the list had no room for), retired:<kind>:<cause> (deliveries
--                      taken down; see `retire`), replays:<state> (replays that ended), replay:<outcome> (dead
--                      letters of replays; see `progress`)
local function count(name, by)
  redis.call('HINCRBY', key('stats'), name, by or 1)
end

-- Nothing is told of the operator's own endpoint, or of a mirror of it: its notices would make notices. What dies
-- because its URL is disabled is not told one by one.
local function notice(event, id, ep, reason)
  local operator, own = redis.call('GET', key('operator')), own_of(ep) or ep
  if not operator or operator == own then return end
  local d = redis.call('HMGET', key('d', id), 'tenant', 'n', 'lastStatus', 'tags')
  local dropped = tell('operator:notices', cjson.encode({
    event = event, at = string.format('%.0f', now), delivery = id, endpoint = own, reason = reason,
    tenant = d[1], origin = redis.call('HGET', key('ep', ep), 'origin') or '', attempts = tonumber(d[2]) or 0,
    status = tonumber(d[3]), tags = d[4],
  }))
  if dropped > 0 then count('dropped', dropped) end
end

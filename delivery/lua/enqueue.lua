-- include: bury
-- Fragment: nothing -> pending. A delivery that exists already stays as it is, so that the transition which
-- owes it may run twice. To a disabled URL, or an endpoint that was deleted meanwhile, it is dead at once.
--
-- Keys of a delivery `d`:
--   d:<d>        hash: ep, tenant, url, urlHash, headers, tags, scheme (absent for v1), trace, trigger (absent for
--                the schedule), state, reason, createdAt, bornAt (since when its age counts), pausedBase (how long its
--                endpoint had been paused by then), n (attempts made), used (of the budget), step (of the schedule),
--                nextAt, claim, settled (the claim last recorded), lost (leases whose process died), lastStatus,
--                endedAt, a<n> (the record of attempt n; the last 20), manual (it has ended, and a person asked for one
--                attempt more), keepUntil (when it would have gone but for that, in ms), asked (the last wish of that
--                kind), shelved (see `shelf`), challenge (what its receiver must answer), replay (see
--                `progress`); or, once it was delivered and can be sent no more, `packed` alone (see `packed`)
--   d:<d>:body   the bytes to send, as long as that can be done
--   d:<d>:end    its state and when it ended, of one that was taken down before its time; see `retire`
local function enqueue(m)
  if redis.call('EXISTS', key('d', m.id)) == 1 then return 0 end
  redis.call('HSET', key('d', m.id), 'ep', m.ep, 'tenant', m.tenant, 'url', m.url, 'urlHash', m.url_hash,
    'tags', m.tags, 'state', 'pending', 'createdAt', now, 'bornAt', now, 'nextAt', now)
  if m.headers ~= '' then redis.call('HSET', key('d', m.id), 'headers', m.headers) end
  if m.scheme and m.scheme ~= 'v1' then redis.call('HSET', key('d', m.id), 'scheme', m.scheme) end
  if m.trace and m.trace ~= '' then redis.call('HSET', key('d', m.id), 'trace', m.trace) end
  if m.trigger and m.trigger ~= 'schedule' then redis.call('HSET', key('d', m.id), 'trigger', m.trigger) end
  local asks = m.challenge and m.challenge ~= ''
  if asks then redis.call('HSET', key('d', m.id), 'challenge', m.challenge) end
  redis.call('SET', key('d', m.id, 'body'), m.body)
  local is_unwanted = m.trigger ~= 'test' and is_disabled(m.ep, m.url_hash)
  local e = redis.call('HMGET', key('ep', m.ep), 'origin', 'paused', 'pausedFor')
  if is_unwanted or not e[1] then
    bury(m.id, m.ep, 'disabled', m.retention)
    return 1
  end
  local paused = paused_total(e[2], e[3])
  if paused > 0 then redis.call('HSET', key('d', m.id), 'pausedBase', paused) end
  local live, due = key('ep', m.ep, 'live'), now
  -- What waits may wait for the answer to a challenge, which goes before all of it.
  if asks then due = math.min(now, head_score(live) or now) - 1 end
  redis.call('ZADD', live, due, m.id)
  rescore(m.ep)
  return 1
end

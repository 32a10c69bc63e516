-- include: bury
-- Fragment: nothing -> pending. A delivery that exists already stays as it is, so that the transition which
-- owes it may run twice.
--
-- Keys of a delivery `d`:
--   d:<d>        hash: ep, tenant, url, urlHash, headers, tags, scheme (absent for v1), traceparent, trigger
--                (absent for the schedule), state, reason, createdAt, bornAt (since
--                when its age counts), n (attempts made), used (of the budget), step (of the schedule), nextAt,
--                claim, settled (the claim last recorded), lost (leases whose process died), lastStatus,
--                endedAt, a<n> (the record of attempt n; the last 20), manual (it has ended, and a person asked for
--                one attempt more), keepUntil (when it would have gone but for that, in ms), asked (the last wish of
--                that kind)
--   d:<d>:body   the bytes to send
local function enqueue(m)
  if redis.call('EXISTS', key('d', m.id)) == 1 then return 0 end
  redis.call('HSET', key('d', m.id), 'ep', m.ep, 'tenant', m.tenant, 'url', m.url, 'urlHash', m.url_hash,
    'tags', m.tags, 'state', 'pending', 'createdAt', now, 'bornAt', now, 'nextAt', now)
  if m.headers ~= '' then redis.call('HSET', key('d', m.id), 'headers', m.headers) end
  if m.scheme and m.scheme ~= 'v1' then redis.call('HSET', key('d', m.id), 'scheme', m.scheme) end
  if m.traceparent and m.traceparent ~= '' then redis.call('HSET', key('d', m.id), 'traceparent', m.traceparent) end
  if m.trigger and m.trigger ~= 'schedule' then redis.call('HSET', key('d', m.id), 'trigger', m.trigger) end
  redis.call('SET', key('d', m.id, 'body'), m.body)
  if m.trigger ~= 'test' and redis.call('SISMEMBER', key('ep', m.ep, 'gone'), m.url_hash) == 1 then
    bury(m.id, m.ep, 'disabled', m.retention)
  else
    redis.call('ZADD', key('ep', m.ep, 'live'), now, m.id)
    rescore(m.ep)
  end
  return 1
end

-- include: base
-- Fragment: replays. Keys of a replay `r`, in its own partition:
--   rp:<r>           hash: tenant, kind, definition (JSON that never changes), toUrl (sealed), state (running, completed,
--                    cancelled, stopped), reason, createdAt, updatedAt, diedBefore (what died later is no part of
--                    it), holder (who works on it), pacedAt (when its rate allows more), baseAttempted and baseFailed
--                    (what its brake begins to count from), asked (the last wish to resume it)
--   replays:<t>      zset of the tenant's replays, by when they were made
--   replaying:<kind> zset of those that run, by when to go on with them
--   replay:kinds     set of the kinds that there were any of
-- `stats` has how many ended: replays:<state>, see `notice`.
local function wake_replays(kind)
  redis.call('PUBLISH', key('wake:replays', kind), '1')
end

-- running -> completed | cancelled | stopped
local function end_replay(id, kind, state, reason, life)
  redis.call('HSET', key('rp', id), 'state', state, 'reason', reason, 'updatedAt', now)
  redis.call('HDEL', key('rp', id), 'holder')
  redis.call('ZREM', key('replaying', kind), id)
  redis.call('HINCRBY', key('stats'), 'replays:' .. state, 1)
  redis.call('PEXPIRE', key('rp', id), math.floor(life / 1000))
end

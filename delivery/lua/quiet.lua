-- include: base
-- Fragment: when a lease that ran out means that its holder is lost. While nobody swept, nobody could renew or
-- record either: the store was away, or could not be reached. After a gap of more than a third of a lease, none is
-- taken for lost for one whole lease. Whoever sweeps does so much more often than that.
--
-- Keys of the partition, for each kind of lease:
--   swept:<kind>   when leases were last looked at
--   quiet:<kind>   until when none is taken for lost
local GAPS_PER_LEASE = 3

local function quiet_until_of(kind)
  return tonumber(redis.call('GET', key('quiet', kind)) or 0)
end

-- Notes a sweep of leases that last `lease` µs; returns until when none is taken for lost.
local function sweep_begins(kind, lease)
  local last = tonumber(redis.call('GET', key('swept', kind)) or now)
  redis.call('SET', key('swept', kind), now)
  if now - last > lease / GAPS_PER_LEASE then
    redis.call('SET', key('quiet', kind), now + lease, 'PX', math.ceil(lease / 1000))
    return now + lease
  end
  return quiet_until_of(kind)
end

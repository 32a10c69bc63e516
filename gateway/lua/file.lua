-- include: space
-- Fragment: an uploaded file that belongs to no job. Keys of the partition:
--   f:<file>   hash, as `gateway/files.py` names its members
--   files      zset of files by when they expire; those whose hash is gone are still to be deleted outside
local function file_view(id)
  local hash = redis.call('HGETALL', key('f', id))
  return #hash > 0 and {now, hash} or nil
end

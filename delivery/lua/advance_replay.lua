#!lua flags=allow-oom
-- A replay has come further in this partition: what was looked at is counted.
-- KEYS 1 partition prefix
-- ARGV 1 replay, 2 died at and 3 identifier: the place it is at, 4 and 5: the place it has come to, 6 1 if nothing is
--      beyond it else 0, 7 counters as JSON
-- Demands that it is at that place.
-- Returns 1 done, 2 done before (the script ran twice), 0 it is elsewhere
-- include: progress
return advance(unpack(ARGV))

#!lua flags=no-writes,allow-oom
-- KEYS 1 partition prefix
-- ARGV 1 job
-- Returns the job's view, or its tombstone as text, or nil
-- include: job
return job_view(ARGV[1]) or redis.call('HGET', tomb_key(ARGV[1]), ARGV[1])

#!lua flags=no-writes,allow-oom
-- KEYS 1 partition prefix
-- ARGV 1 file
-- Returns {now, its hash}, or nil when there is no such file
-- include: file
return file_view(ARGV[1])

-- ARGV[4..8]: a version of the admission, mode, max_active, count and seconds of the rate. Only a newer one is taken.

if not epoch then return { 1 } end
if tonumber(ARGV[4]) > version then
    call('HSET', ROOM, 'version', ARGV[4], 'mode', ARGV[5], 'max', ARGV[6], 'rate_count', ARGV[7], 'rate_s', ARGV[8])
end
return { 0 }

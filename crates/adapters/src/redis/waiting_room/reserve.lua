-- ARGV[4] the epoch, ARGV[5] up to which place the mirror knows that places may have been given out.

if not epoch then return { 1 } end
if epoch ~= ARGV[4] then return { 4 } end
if tonumber(ARGV[5]) > reserved then call('HSET', ROOM, 'reserved', ARGV[5]) end
return { 0 }

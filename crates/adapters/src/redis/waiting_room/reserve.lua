-- ARGV[4]: up to which place the mirror knows that places may have been given out. It holds in every epoch.

if not epoch then return { 1 } end
if tonumber(ARGV[4]) > reserved then call('HSET', ROOM, 'reserved', ARGV[4]) end
return { 0 }

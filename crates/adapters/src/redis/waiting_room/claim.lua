-- ARGV[4]: the epoch of a room to be built. ARGV[5]: how long its builder may take, milliseconds.
-- Answers whether the caller is to build it: 0 it is there, 1 yes, 2 somebody else is at it.

if epoch then return 0 end
if call('SET', BUILDING, ARGV[4], 'NX', 'PX', ARGV[5]) then return 1 end
return call('GET', BUILDING) == ARGV[4] and 1 or 2

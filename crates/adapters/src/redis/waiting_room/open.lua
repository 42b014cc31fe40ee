-- ARGV[4]: the start of sale, or -1. Answers with the version of the admission that the room has.

if not epoch then return { 1 } end
if tonumber(ARGV[4]) ~= sale then call('HSET', ROOM, 'sale', ARGV[4]) end
keep()
return { 0, version }

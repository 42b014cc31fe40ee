-- ARGV[4] a user, ARGV[5] when they paid. Ends the turn in which that was.

if not epoch then return { 1 } end
local latest = call('HGET', USERS, ARGV[4])
local it = latest and read(latest)
if it and it.status == 'A' and it.till > now and it.began <= tonumber(ARGV[5]) then finish(it, 'D') end
return { 0 }

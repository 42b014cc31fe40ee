-- ARGV[4] the user, ARGV[5] the entry if it is a new one.

if not epoch then return { 1 } end
local latest = call('HGET', USERS, ARGV[4])
local before = latest and read(latest)
if before and lives(before) then return describe(before, 0) end
if mode == 'D' then return { 2 } end
if last >= reserved then return { 3, epoch, last } end
-- A turn that is over by the clock ends before the new entry begins.
if before and is_over(before) then finish(before, 'E') end
last = last + 1
write(ARGV[5], 'W', ARGV[4], last)
call('HSET', USERS, ARGV[4], ARGV[5])
call('ZADD', WAITING, last, ARGV[5])
call('HSET', ROOM, 'last', last, 'latest', now)
if call('ZCARD', WAITING) == 1 then keep() end
return describe({ entry = ARGV[5], status = 'W', user = ARGV[4], place = last }, 1)

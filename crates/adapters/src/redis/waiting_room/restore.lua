-- Gives a lost entry back. ARGV[4] entry, ARGV[5] user, ARGV[6] place, ARGV[7] the end of its turn, or -1.
-- The last number of the answer is 1 when it waits for the mirror before its turn goes on.

if not epoch then return { 1 } end
local known = read(ARGV[4])
if known then return describe(known) end
local user, place, till = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
-- What this epoch gave out was not lost; who was promoted before the loss is known from the mirror, or has ended.
if place > lost_to or place <= head then return { 0 } end
if till >= 0 and till <= now then return { 0 } end
local latest = call('HGET', USERS, user)
local other = latest and read(latest)
if other and lives(other) then
    -- The later of two stays is the user's; one that began in this epoch began because the earlier was lost.
    local is_newcomer = other.place > lost_to
    if other.status == 'A' or call('HEXISTS', PENDING, latest) == 1 then return { 0 } end
    if not is_newcomer and other.place > place then return { 0 } end
    finish(other, 'L')
elseif other then
    if other.place > place then return { 0 } end
    if is_over(other) then finish(other, 'E') end
end
write(ARGV[4], 'W', user, place)
call('HSET', USERS, user, ARGV[4])
call('ZADD', WAITING, place, ARGV[4])
call('HSET', ROOM, 'latest', now)
keep()
local pending = 0
if till > now and call('ZCOUNT', ACTIVE, '(' .. text(now), '+inf') + call('HLEN', PENDING) < max_active then
    -- It goes on as a promotion does: first the mirror, then the turn.
    call('HSET', PENDING, ARGV[4], struct.pack('>I7I7I7', math.max(till - TURN, 0), till, real))
    call('EXPIRE', PENDING, KEPT_S)
    pending = 1
end
return describe({ entry = ARGV[4], status = 'W', user = user, place = place }, pending)

-- Makes the room whose building was claimed, from what the mirror had after the claim.
--
-- ARGV[4] epoch, [5] start of sale or -1, [6..10] admission as in admit.lua, [11] last place, [12] promoted to,
-- [13..15] served, expired, left, [16] the longest pause of a rate, [17] turns, each entry, user, place, beginning and
-- end, in the order they began, [18] turns to be taken from the mirror, [19] promotions of the past, each instant and
-- count.

if epoch or call('GET', BUILDING) ~= ARGV[4] then return { 4 } end
-- What an earlier epoch left behind, where not everything was lost.
for key = 2, 9 do call('UNLINK', KEYS[key]) end
sale, mode, max_active = tonumber(ARGV[5]), ARGV[7], tonumber(ARGV[8])
rate_s = tonumber(ARGV[10])
last, head, paced = tonumber(ARGV[11]), tonumber(ARGV[12]), 0
local pause = last > 0 and math.min(rate_s * 1000000, tonumber(ARGV[16])) or 0
call('HSET', ROOM, 'epoch', ARGV[4], 'latest', now, 'sale', sale, 'version', ARGV[6], 'mode', mode, 'max', max_active, 'rate_count',
    ARGV[9], 'rate_s', rate_s, 'sold_out', 0, 'last', last, 'reserved', last, 'head', head, 'top', head, 'lost_to', last, 'paced', 0,
    'D', ARGV[13], 'E', ARGV[14], 'L', ARGV[15])
if last > 0 then call('HSET', ROOM, 'frozen_until', now + ARGV[#ARGV], 'resume_at', now + pause) end

local active = 0
for at = 1, #ARGV[17], 51 do
    local entry, user = ARGV[17]:sub(at, at + 15), ARGV[17]:sub(at + 16, at + 31)
    local place, began, till = struct.unpack('>I5I7I7', ARGV[17], at + 32)
    call('HSET', USERS, user, entry)
    if till <= now then
        finish({ entry = entry, status = 'A', user = user, place = place }, 'E')
    elseif active < max_active then
        active = active + 1
        write(entry, 'A', user, place, began, till)
        call('ZADD', ACTIVE, till, entry)
    else
        -- More turns than may be: the latest wait, in front of everybody.
        write(entry, 'W', user, place)
        call('ZADD', WAITING, place, entry)
    end
end
for at = 1, #ARGV[18], 16 do call('SADD', UNSAVED, ARGV[18]:sub(at, at + 15)) end
for at = 1, #ARGV[19], 11 do
    local when, count = struct.unpack('>I7I4', ARGV[19], at)
    pace(when, count)
end
call('DEL', BUILDING)
keep()
return { 0 }

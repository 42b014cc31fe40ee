-- Ends turns that are over, chooses who may go, and says what the mirror has to know before they go.
--
-- ARGV[4] seats that could still be had, [5] whether they limit turns, [6] the instance, [7] for how long it alone
-- writes to the mirror, [8] for how long what ended is kept, [9] the longest time that promotions are counted for,
-- [10] how long a promotion may wait for the mirror, [11..13] at most so many promotions, ends and entries forgotten,
-- [14..15] places reserved ahead, at least and at most. Times are microseconds.

if not epoch then return { 1 } end
local obtainable, is_linked, instance = tonumber(ARGV[4]), ARGV[5] == '1', ARGV[6]

local over = call('ZRANGEBYSCORE', ACTIVE, '-inf', now, 'LIMIT', 0, ARGV[12])
for _, entry in ipairs(over) do
    local it = read(entry)
    if it then finish(it, 'E') else call('ZREM', ACTIVE, entry) end
end
for _, entry in ipairs(call('ZRANGEBYSCORE', ENDED, '-inf', '(' .. text(now - ARGV[8]), 'LIMIT', 0, ARGV[13])) do
    local it = read(entry)
    call('ZREM', ENDED, entry)
    call('HDEL', ENTRIES, entry)
    if it and call('HGET', USERS, it.user) == entry then call('HDEL', USERS, it.user) end
end
-- The last one that no window reaches any more stays: totals are counted from it.
local old = call('ZREVRANGEBYSCORE', PACE, now - ARGV[9], '-inf', 'LIMIT', 0, 1)
if old[1] then
    local rank = call('ZRANK', PACE, old[1])
    if rank > 0 then call('ZREMRANGEBYRANK', PACE, 0, rank - 1) end
end
sold_out = obtainable == 0
call('HSET', ROOM, 'sold_out', sold_out and 1 or 0, 'latest', now)

local more = call('HMGET', ROOM, 'frozen_until', 'resume_at', 'saver', 'saver_until', 'saved', 'D', 'E', 'L')
if more[3] and more[3] ~= instance and real < tonumber(more[4]) then
    -- Another instance has told the mirror something and will let those in whom it chose.
    keep()
    return { 0, now, #over, 0, epoch, paced }
end

-- Promotions that waited too long for the mirror are chosen again, by today's limits.
local pending, pending_count = {}, 0
local held = call('HGETALL', PENDING)
for at = 1, #held, 2 do
    local began, till, since = struct.unpack('>I7I7I7', held[at + 1])
    if real - since > tonumber(ARGV[10]) or till <= now then
        call('HDEL', PENDING, held[at])
    else
        pending[held[at]] = { began, till }
        pending_count = pending_count + 1
    end
end

local allowed = 0
local is_open = sale < 0 or sale <= now
local is_resumed = now >= (tonumber(more[2]) or 0)
if is_open and is_resumed and mode ~= 'P' and not sold_out then
    local taken = call('ZCOUNT', ACTIVE, '(' .. text(now), '+inf') + pending_count
    allowed = max_active - taken
    if is_linked then allowed = math.min(allowed, obtainable - taken) end
    if rate_count > 0 then allowed = math.min(allowed, rate_count - promoted_within(rate_s * 1000000)) end
    allowed = math.max(math.min(allowed, tonumber(ARGV[11])), 0)
end

-- In order of place: whoever is chosen already, then whoever may go now, and whose place is the first that stays.
local chosen, began, first_waiting = 0, {}, nil
local front = call('ZRANGE', WAITING, 0, pending_count + allowed, 'WITHSCORES')
for at = 1, #front, 2 do
    local entry, place = front[at], tonumber(front[at + 1])
    if not pending[entry] and chosen < allowed then
        chosen = chosen + 1
        pending[entry] = { now, now + TURN }
        call('HSET', PENDING, entry, struct.pack('>I7I7I7', now, now + TURN, real))
    end
    if not pending[entry] then
        first_waiting = first_waiting or place
    end
end
if chosen > 0 then pace(now, chosen) end
local promoted_to = top
for entry, turn in pairs(pending) do
    local it = read(entry)
    if it and it.status == 'W' then
        began[#began + 1] = entry .. it.user .. struct.pack('>I5I7I7', it.place, turn[1], turn[2])
        promoted_to = math.max(promoted_to, it.place)
    else
        call('HDEL', PENDING, entry)
    end
end
-- As long as the lost may come back, nobody before them counts as promoted, or they would read as ended.
if first_waiting then promoted_to = math.min(promoted_to, first_waiting - 1) end
if now < (tonumber(more[1]) or 0) then promoted_to = head end
promoted_to = math.max(promoted_to, head)

local ahead = math.max(math.min(math.floor(last / 4), tonumber(ARGV[15])), tonumber(ARGV[14]))
if reserved - last < ahead / 2 then reserved = last + ahead end

local ended = call('SRANDMEMBER', UNSAVED, ARGV[12])
-- Ends that this tick wrote have changed the count.
more[7] = call('HGET', ROOM, 'E')
local mark = table.concat({ text(reserved), text(promoted_to), more[6], more[7], more[8] }, ',')
local is_save = #began > 0 or #ended > 0 or mark ~= more[5]
if is_save then call('HSET', ROOM, 'saver', instance, 'saver_until', real + ARGV[7]) end
keep()
return { 0, now, #over, is_save and 1 or 0, epoch, paced, mark, began, ended }

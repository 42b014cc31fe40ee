-- What every script of the waiting room begins with: the keys, the time, the room, and how an entry is written.
--
-- KEYS are always the ten of one concert, under one hash tag. ARGV begins with the clock's offset and a turn's length,
-- both in microseconds, and for how many seconds a room is kept that nobody touches; it ends with the highest place
-- that the caller knows was given out, and for how long the order of the lost is waited for, microseconds.
-- Answers begin with 0, or with what stands in the way: 1 there is no room, 2 draining, 3 places must be reserved
-- first, 4 another epoch.

if #KEYS ~= 10 then return redis.error_reply('BADKEYS a waiting room has ten keys') end
local ROOM, ENTRIES, USERS, WAITING, ACTIVE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ENDED, PACE, PENDING, UNSAVED, BUILDING = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local call = redis.call
local TURN, KEPT_S = tonumber(ARGV[2]), ARGV[3]
local RATE_WINDOW = 60000000

local clock = call('TIME')
-- The node's own time; leases of instances are by it, so that moving the room's time does not end them.
local real = clock[1] * 1000000 + clock[2]
local found = call('HMGET', ROOM, 'epoch', 'latest', 'sale', 'mode', 'max', 'rate_count', 'rate_s', 'version', 'sold_out', 'last',
    'reserved', 'head', 'top', 'lost_to', 'paced')
local epoch = found[1]
-- Time never runs backwards for a room, whichever node tells it.
local now = math.max(real + ARGV[1], tonumber(found[2]) or 0)
local sale = tonumber(found[3]) or -1
local mode, max_active = found[4], tonumber(found[5])
local rate_count, rate_s, version = tonumber(found[6]), tonumber(found[7]), tonumber(found[8])
local sold_out = found[9] == '1'
local last, reserved, head, top = tonumber(found[10]), tonumber(found[11]), tonumber(found[12]), tonumber(found[13])
-- Places up to here may have been lost with an earlier epoch, and paced promotions are counted since this one began.
local lost_to, paced = tonumber(found[14]), tonumber(found[15])

-- A node that took over, or started again, without the latest changes: places it does not know of were given out.
if epoch and tonumber(ARGV[#ARGV - 1]) > last then
    last = tonumber(ARGV[#ARGV - 1])
    lost_to = last
    call('HSET', ROOM, 'last', last, 'lost_to', last, 'frozen_until', now + ARGV[#ARGV])
end

local function text(number) return string.format('%.0f', number) end

-- Rooms that nobody touches any more go away by themselves.
local function keep()
    for key = 1, 9 do call('EXPIRE', KEYS[key], KEPT_S) end
end

-- An entry is one compact value: status, user, place, and for a turn when it began and ends.
local function write(entry, status, user, place, began, till)
    local times = began and struct.pack('>I7I7', began, till) or ''
    call('HSET', ENTRIES, entry, status .. user .. struct.pack('>I5', place) .. times)
end

local function read(entry)
    local value = call('HGET', ENTRIES, entry)
    if not value then return nil end
    local it = { entry = entry, status = value:sub(1, 1), user = value:sub(2, 17), place = (struct.unpack('>I5', value, 18)) }
    if it.status == 'A' then it.began, it.till = struct.unpack('>I7I7', value, 23) end
    return it
end

local function is_over(it) return it.status == 'A' and it.till <= now end

-- Whether it still has a place or a turn.
local function lives(it) return it.status == 'W' or (it.status == 'A' and it.till > now) end

-- Ends an entry. The mirror is told of whoever it may know as active.
local function finish(it, status)
    local was_pending = 0
    if it.status == 'A' then
        call('ZREM', ACTIVE, it.entry)
    else
        call('ZREM', WAITING, it.entry)
        was_pending = call('HDEL', PENDING, it.entry)
    end
    if it.status == 'A' or was_pending == 1 or it.place <= head then call('SADD', UNSAVED, it.entry) end
    write(it.entry, status, it.user, it.place)
    call('ZADD', ENDED, now, it.entry)
    call('HINCRBY', ROOM, status, 1)
    call('HSET', ROOM, 'latest', now)
    keep()
end

-- Promotions after `now - window`, that instant excluded. The members of PACE are running totals.
local function promoted_within(window)
    local before = call('ZREVRANGEBYSCORE', PACE, now - window, '-inf', 'LIMIT', 0, 1)
    return paced - (tonumber(before[1]) or 0)
end

local function pace(at, count)
    paced = paced + count
    call('ZADD', PACE, at, string.format('%015.0f', paced))
    call('HSET', ROOM, 'paced', paced)
end

-- An entry as it reads now. A turn that is over has ended, whatever is written.
local function describe(it, extra)
    local status = is_over(it) and 'E' or it.status
    local ahead, till = -1, -1
    if status == 'W' then
        ahead = call('ZRANK', WAITING, it.entry) or -1
    elseif status == 'A' then
        ahead, till = 0, it.till
    end
    return { 0, now, status, it.entry, it.user, it.place, ahead, till, sale, sold_out and 1 or 0, promoted_within(RATE_WINDOW), extra or 0, epoch }
end

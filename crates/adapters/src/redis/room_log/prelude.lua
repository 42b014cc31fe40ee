-- The beginning of every script of a room's log: the keys, the time, and the log, complete or absent.
--
-- KEYS are always the four of one concert, under one hash tag. ARGV begins with the clock's offset in microseconds and
-- the number of seconds for which an unused log is kept.

if #KEYS ~= 4 then return redis.error_reply('BADKEYS a log has four keys') end
local HEAD, RECORDS, SNAPSHOT, PIECES = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local KEPT_S = tonumber(ARGV[2])
local call = redis.call

local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2] + ARGV[1]
local found = call('HMGET', HEAD, 'epoch', 'base', 'base_stamp', 'last', 'stamp', 'latest', 'size')
-- `false`: there is no log.
local epoch = found[1]
local base, base_stamp, last, stamp = tonumber(found[2]), found[3], tonumber(found[4]), found[5]
local latest, size = tonumber(found[6]), tonumber(found[7])

-- If a part was evicted, or written by another program, the rest is deleted too.
if epoch and (call('LLEN', RECORDS) ~= last - base or call('STRLEN', SNAPSHOT) ~= size) then
    call('UNLINK', HEAD, RECORDS, SNAPSHOT)
    epoch = false
end
-- Time goes back within a log only when the clock was set back by more than a second (the domain's SET_BACK_S). A node
-- and the one that takes over from it differ by less.
if epoch and latest - now <= 1000000 then now = math.max(now, latest) end

local function text(number) return string.format('%.0f', number) end

-- The head expires first, or with the others: it never exists without them.
local function keep()
    for key = 3, 1, -1 do call('EXPIRE', KEYS[key], KEPT_S) end
end

-- The stamp of the record at a position of the log.
local function stamp_at(seq)
    if seq == last then return stamp end
    if seq == base then return base_stamp end
    return call('LINDEX', RECORDS, seq - last - 1):sub(9, 16)
end

-- Whether a snapshot of that size came with this call, or in pieces before it.
local function is_here(bytes, length) return #bytes == length or call('STRLEN', PIECES) == length end

local function put_snapshot(bytes, length)
    if #bytes == length then
        call('SET', SNAPSHOT, bytes, 'EX', KEPT_S)
    else
        call('RENAME', PIECES, SNAPSHOT)
        call('EXPIRE', SNAPSHOT, KEPT_S)
    end
    call('HSET', HEAD, 'size', text(length))
end

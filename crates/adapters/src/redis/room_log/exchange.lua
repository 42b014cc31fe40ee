-- ARGV[3], ARGV[4]: the reader's epoch and position; ARGV[5] whose record they read there, or empty. ARGV[6]: an epoch
-- for a log that is found to have lost it. ARGV[7] to ARGV[9]: the most records and bytes of an answer, and the
-- most bytes of a snapshot in it. ARGV[10], ARGV[11]: who appends, and what, or empty.
--
-- Answers: 0, now, when theirs was appended or -1, records. 1, now, whether records were lost, epoch, base, its stamp,
-- the snapshot's size and its beginning. 2, now: there is no log. 3: it was appended before, and others after it.

if not epoch then return { 2, now } end
-- Refreshed once in an hour.
if call('TTL', HEAD) < KEPT_S - 3600 then keep() end

local since = tonumber(ARGV[4])
local is_in_log, lost = ARGV[3] == epoch and since >= base and since <= last, 0
-- A node that took over, or started again, without the latest records. Who read those must begin again; under another
-- epoch, so that whoever was not so far learns of it too, and what is appended now is not taken for what was lost.
if ARGV[3] == epoch and ARGV[5] ~= '' and (since > last or (is_in_log and stamp_at(since) ~= ARGV[5])) then
    is_in_log, lost, epoch = false, 1, ARGV[6]
    call('HSET', HEAD, 'epoch', epoch)
end
if not is_in_log then
    return { 1, now, lost, epoch, text(base), base_stamp, size, call('GETRANGE', SNAPSHOT, 0, ARGV[9] - 1) }
end

local STEP = 64
local most, bytes_most, bytes = tonumber(ARGV[7]), tonumber(ARGV[8]), 0
local records, seq = {}, since
while seq < last and #records < most and bytes < bytes_most do
    -- From the end: who misses little costs little.
    for _, record in ipairs(call('LRANGE', RECORDS, seq - last, math.min(seq - last + STEP, 0) - 1)) do
        if #records == most or bytes >= bytes_most then break end
        seq, bytes = seq + 1, bytes + #record
        records[#records + 1] = record
    end
end
if seq < last or ARGV[11] == '' then return { 0, now, -1, records } end

-- A client that got no answer may have sent it again by itself.
for at, record in ipairs(records) do
    if record:sub(9, 16) == ARGV[10] then
        if at < #records then return { 3 } end
        records[at] = nil
        return { 0, now, (struct.unpack('>I8', record)), records }
    end
end
-- First what may be refused for want of memory.
if call('RPUSH', RECORDS, struct.pack('>I8', now) .. ARGV[10] .. ARGV[11]) == 1 then call('EXPIRE', RECORDS, KEPT_S) end
call('HSET', HEAD, 'last', text(last + 1), 'stamp', ARGV[10], 'latest', text(now))
return { 0, now, now, records }

-- ARGV[3], ARGV[4]: the reader's epoch and position; ARGV[5]: the stamp that it read there, or empty. ARGV[6]: a new epoch
-- in case the log has lost that record. ARGV[7] to ARGV[9]: the most records and bytes of an answer, and the most bytes
-- of a snapshot in it. ARGV[10], ARGV[11]: the stamp of the record to append, and its inputs, or empty.
--
-- Answers: 0, now, the time of the appended record or -1, records. 1, now, whether records were lost, epoch, base, its
-- stamp, the snapshot's size and its first part. 2, now: there is no log. 3: it was appended before, and others after it.

if not epoch then return { 2, now } end
-- Refreshed once in an hour.
if call('TTL', HEAD) < KEPT_S - 3600 then keep() end

local since = tonumber(ARGV[4])
local is_in_log, lost = ARGV[3] == epoch and since >= base and since <= last, 0
-- A node took over, or started again, without the latest records. Readers of those must begin again. The epoch changes, so
-- that readers of earlier positions learn of it too, and new records are not mistaken for the lost ones.
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
    -- From the end: the cost is that of the missing records.
    for _, record in ipairs(call('LRANGE', RECORDS, seq - last, math.min(seq - last + STEP, 0) - 1)) do
        if #records == most or bytes >= bytes_most then break end
        seq, bytes = seq + 1, bytes + #record
        records[#records + 1] = record
    end
end
if seq < last or ARGV[11] == '' then return { 0, now, -1, records } end

-- A client that got no answer may have sent the call again by itself.
for at, record in ipairs(records) do
    if record:sub(9, 16) == ARGV[10] then
        if at < #records then return { 3 } end
        records[at] = nil
        return { 0, now, (struct.unpack('>I8', record)), records }
    end
end
-- First the write that may be refused for lack of memory.
if call('RPUSH', RECORDS, struct.pack('>I8', now) .. ARGV[10] .. ARGV[11]) == 1 then call('EXPIRE', RECORDS, KEPT_S) end
call('HSET', HEAD, 'last', text(last + 1), 'stamp', ARGV[10], 'latest', text(now))
return { 0, now, now, records }

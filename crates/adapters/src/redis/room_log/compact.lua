-- ARGV[3], ARGV[4]: epoch and position up to which; ARGV[5]: the stamp that the caller read there, or empty.
-- ARGV[6], ARGV[7]: the size of the snapshot, and the snapshot.
-- Answers: 0 the position is not in the log, 1 done, 2 the pieces are missing.

local upto, length = tonumber(ARGV[4]), tonumber(ARGV[6])
-- At the base there is a snapshot already.
local is_in_log = epoch and ARGV[3] == epoch and upto > base and upto <= last
if not is_in_log or (ARGV[5] ~= '' and stamp_at(upto) ~= ARGV[5]) then
    call('UNLINK', PIECES)
    return 0
end
if not is_here(ARGV[7], length) then return 2 end
local new_base_stamp = stamp_at(upto)
put_snapshot(ARGV[7], length)
call('LTRIM', RECORDS, upto - base, -1)
call('HSET', HEAD, 'base', text(upto), 'base_stamp', new_base_stamp)
return 1

-- ARGV[3], ARGV[4]: the first epoch and stamp of the log. ARGV[5], ARGV[6]: the size of its snapshot, and the snapshot.
-- Answers: 0 there is one already, 1 done, 2 the pieces are missing.

if epoch then
    call('UNLINK', PIECES)
    -- Its own call, sent again by a client that got no answer.
    return epoch == ARGV[3] and 1 or 0
end
local length = tonumber(ARGV[5])
if not is_here(ARGV[6], length) then return 2 end
-- Keys that an earlier log left.
call('UNLINK', HEAD, RECORDS)
put_snapshot(ARGV[6], length)
call('HSET', HEAD, 'epoch', ARGV[3], 'base', 0, 'base_stamp', ARGV[4], 'last', 0, 'stamp', ARGV[4], 'latest', text(now))
keep()
return 1

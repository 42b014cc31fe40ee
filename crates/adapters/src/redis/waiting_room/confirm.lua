-- The mirror has it: those who were chosen go. ARGV[4] the epoch, ARGV[5] the instance, ARGV[6] the mark as it was
-- saved (empty: it was not), ARGV[7] the last place reserved, ARGV[8] promoted to, ARGV[9] and ARGV[10] the entries of turns that began
-- and ended.

if not epoch then return { 1 } end
if epoch ~= ARGV[4] then return { 4 } end
for at = 1, #ARGV[10], 16 do call('SREM', UNSAVED, ARGV[10]:sub(at, at + 15)) end
local promoted = 0
for at = 1, #ARGV[9], 16 do
    local entry = ARGV[9]:sub(at, at + 15)
    local it, turn = read(entry), call('HGET', PENDING, entry)
    if it and it.status == 'W' and turn then
        local began, till = struct.unpack('>I7I7', turn)
        write(entry, 'A', it.user, it.place, began, till)
        call('ZADD', ACTIVE, till, entry)
        call('ZREM', WAITING, entry)
        call('HDEL', PENDING, entry)
        top = math.max(top, it.place)
        promoted = promoted + 1
    elseif not (it and it.status == 'A') then
        -- It ended meanwhile, and the mirror may have heard of that before it heard of the beginning.
        call('SADD', UNSAVED, entry)
    end
end
call('HSET', ROOM, 'top', top)
if ARGV[6] ~= '' then
    call('HSET', ROOM, 'saved', ARGV[6], 'reserved', math.max(reserved, tonumber(ARGV[7])), 'head', math.max(head, tonumber(ARGV[8])))
end
if call('HGET', ROOM, 'saver') == ARGV[5] then call('HDEL', ROOM, 'saver', 'saver_until') end
keep()
return { 0, promoted }

-- Waiting, active, served, left, expired, and promotions within the window that rates are measured over.

if not epoch then return { 1 } end
local over = call('ZCOUNT', ACTIVE, '-inf', now)
local counted = call('HMGET', ROOM, 'D', 'L', 'E')
return { 0, call('ZCARD', WAITING), call('ZCARD', ACTIVE) - over, tonumber(counted[1]), tonumber(counted[2]), counted[3] + over,
    promoted_within(RATE_WINDOW) }

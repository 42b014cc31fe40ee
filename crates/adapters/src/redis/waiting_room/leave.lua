-- ARGV[4]: an entry. Answers whether the mirror may know it as active.

if not epoch then return { 1 } end
local it = read(ARGV[4])
if not it then return { 0, 0 } end
if is_over(it) then
    finish(it, 'E')
elseif lives(it) then
    finish(it, 'L')
else
    return { 0, 0 }
end
return { 0, call('SISMEMBER', UNSAVED, ARGV[4]) }

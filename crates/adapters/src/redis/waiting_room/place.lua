-- ARGV[4]: an entry. It is only read.

if not epoch then return { 1 } end
local it = read(ARGV[4])
if not it then return { 0 } end
return describe(it)

-- The admission that the room has, with its version.

if not epoch then return { 1 } end
return { 0, version, mode, max_active, rate_count, rate_s }

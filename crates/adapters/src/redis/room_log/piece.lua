-- ARGV[3], ARGV[4]: epoch and position of a snapshot. ARGV[5], ARGV[6]: the offset and length of the piece.
-- Answers with the piece, or 0: the snapshot was replaced.

if not epoch or ARGV[3] ~= epoch or tonumber(ARGV[4]) ~= base then return 0 end
return call('GETRANGE', SNAPSHOT, ARGV[5], ARGV[5] + ARGV[6] - 1)

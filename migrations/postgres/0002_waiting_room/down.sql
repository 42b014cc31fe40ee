DROP FUNCTION mirror_save;

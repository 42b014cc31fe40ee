DROP TRIGGER dates_changed ON dates;
DROP TRIGGER concerts_changed ON concerts;
DROP FUNCTION note_catalog_change();
DROP TABLE catalog_changes;

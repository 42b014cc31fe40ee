DROP TRIGGER date_removed;
DROP TRIGGER date_changed;
DROP TRIGGER date_added;
DROP TRIGGER concert_removed;
DROP TRIGGER concert_changed;
DROP TRIGGER concert_added;
DROP TABLE catalog_version;

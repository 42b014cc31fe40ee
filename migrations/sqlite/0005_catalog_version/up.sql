-- How often concerts and dates have changed: whoever has read them reads them again when this is another number.
CREATE TABLE catalog_version (
    one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO catalog_version VALUES (1, 0);

CREATE TRIGGER concert_added AFTER INSERT ON concerts BEGIN UPDATE catalog_version SET version = version + 1; END;
CREATE TRIGGER concert_changed AFTER UPDATE ON concerts BEGIN UPDATE catalog_version SET version = version + 1; END;
CREATE TRIGGER concert_removed AFTER DELETE ON concerts BEGIN UPDATE catalog_version SET version = version + 1; END;
CREATE TRIGGER date_added AFTER INSERT ON dates BEGIN UPDATE catalog_version SET version = version + 1; END;
CREATE TRIGGER date_changed AFTER UPDATE ON dates BEGIN UPDATE catalog_version SET version = version + 1; END;
CREATE TRIGGER date_removed AFTER DELETE ON dates BEGIN UPDATE catalog_version SET version = version + 1; END;

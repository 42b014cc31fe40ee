-- Changes of concerts and dates: whoever has read them reads them again when there are more. Rows are added, and none is
-- changed, so that an import and an operator's PATCH never wait for each other's here.
CREATE TABLE catalog_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY
);

CREATE FUNCTION note_catalog_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO catalog_changes DEFAULT VALUES;
    RETURN NULL;
END $$;

CREATE TRIGGER concerts_changed AFTER INSERT OR UPDATE OR DELETE ON concerts FOR EACH STATEMENT EXECUTE FUNCTION note_catalog_change();
CREATE TRIGGER dates_changed AFTER INSERT OR UPDATE OR DELETE ON dates FOR EACH STATEMENT EXECUTE FUNCTION note_catalog_change();

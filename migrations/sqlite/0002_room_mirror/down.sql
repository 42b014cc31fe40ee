DROP TABLE mirrored_places;
DROP TABLE mirrored_rooms;

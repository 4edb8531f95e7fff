-- Whose name or picture has changed and may not be in all rooms yet. Each change has a number of its own: only who has shown the last
-- one takes the row away.
CREATE SEQUENCE profile_show_numbers AS bigint;
CREATE TABLE profiles_to_show (
    user_id     text   PRIMARY KEY,
    show_number bigint NOT NULL DEFAULT nextval('profile_show_numbers')
);

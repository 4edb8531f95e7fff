-- Whose profile changed last at which place of the stream, so that processes that have it in memory hear of it.
CREATE SEQUENCE stream_profiles AS bigint;
CREATE TABLE profile_changes (
    user_id   text     PRIMARY KEY,
    stream_id bigint   NOT NULL,
    writer_id smallint NOT NULL
);
CREATE INDEX profile_changes_stream ON profile_changes (stream_id);

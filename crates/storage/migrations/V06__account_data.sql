-- Account data and filters.

-- One row per user, room and type; the stream's rows are these.
CREATE TABLE account_data (
    user_id   text     NOT NULL,
    -- '' for global account data.
    room_id   text     NOT NULL,
    type      text     NOT NULL,
    stream_id bigint   NOT NULL,
    writer_id smallint NOT NULL,
    content   text     NOT NULL,
    PRIMARY KEY (user_id, room_id, type)
) WITH (fillfactor = 90);
CREATE INDEX account_data_stream ON account_data (stream_id);
ALTER TABLE account_data ALTER COLUMN content SET COMPRESSION lz4;

-- Filters never change, and equal ones of a user are one.
CREATE TABLE filters (
    user_id     text   NOT NULL,
    filter_id   bigint NOT NULL,
    filter_hash bytea  NOT NULL,
    -- Canonical JSON.
    filter      text   NOT NULL,
    PRIMARY KEY (user_id, filter_id)
);
CREATE UNIQUE INDEX filters_hash ON filters (user_id, filter_hash);

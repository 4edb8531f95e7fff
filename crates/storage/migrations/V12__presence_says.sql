-- What a user says of how they are has a place in the stream of its own: whether they are here is said by any process that sees
-- them, again and again, and must not take back what they said at another one in the meantime.
--
-- Zero: written by a daemon of before, at the place of the whole row.
ALTER TABLE presence
    ADD COLUMN status_stream_id bigint   NOT NULL DEFAULT 0,
    ADD COLUMN status_writer_id smallint NOT NULL DEFAULT 0;
CREATE INDEX presence_status_stream ON presence (status_stream_id);

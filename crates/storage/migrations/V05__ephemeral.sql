-- How far users have read, and who is here.

-- One row per mark that a user has set: a room, public or private, the whole room or one thread of it.
CREATE TABLE receipts (
    room_nid     bigint   NOT NULL,
    user_id      text     NOT NULL,
    -- 0 m.read, 1 m.read.private
    receipt_type smallint NOT NULL,
    -- Empty: the whole room. `main` or the id of a thread's root otherwise.
    thread_id    text     NOT NULL,
    event_id     text     NOT NULL,
    -- The place of the event in the room's timeline. NULL: the event is not known here (yet).
    event_pos    bigint,
    ts           bigint   NOT NULL,
    stream_id    bigint   NOT NULL,
    writer_id    smallint NOT NULL,
    PRIMARY KEY (room_nid, user_id, receipt_type, thread_id)
) WITH (fillfactor = 80);
CREATE INDEX receipts_stream ON receipts (stream_id);

-- What is known of each user's presence.
CREATE TABLE presence (
    user_id        text     PRIMARY KEY,
    -- 0 offline, 1 unavailable, 2 online
    presence       smallint NOT NULL,
    status_msg     text,
    last_active_ts bigint   NOT NULL,
    stream_id      bigint   NOT NULL,
    writer_id      smallint NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX presence_stream ON presence (stream_id);

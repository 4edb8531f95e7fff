-- Events that others of their room name as `prev_events` and whose place in the history is not here: where the history
-- goes on, on other servers.
CREATE TABLE backward_extremities (
    room_nid bigint NOT NULL,
    event_id text   NOT NULL,
    PRIMARY KEY (room_nid, event_id)
);

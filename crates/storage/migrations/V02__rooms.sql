-- Rooms, their events and their state. Every primary key starts with the room's number and no constraint runs across
-- rooms, so that these tables can be distributed by room.

-- Numbers are taken in blocks, so that an event has its number before it is written and what is built on it can name
-- it. They say nothing about order: that is what `events.pos` is for.
CREATE SEQUENCE event_nids AS bigint INCREMENT 1000;
CREATE SEQUENCE room_nids AS bigint;

CREATE TABLE rooms (
    room_nid     bigint  PRIMARY KEY,
    room_id      text    NOT NULL UNIQUE,
    room_version text    NOT NULL,
    -- Published in the room directory.
    is_public    boolean NOT NULL DEFAULT false,
    -- Nothing can be sent or joined any more (an administrator's block).
    is_blocked   boolean NOT NULL DEFAULT false
);
CREATE INDEX rooms_public ON rooms (room_nid) WHERE is_public;

-- One row per event, in the JSON that was signed.
CREATE TABLE events (
    room_nid   bigint   NOT NULL,
    -- The event's number for life.
    event_nid  bigint   NOT NULL,
    -- The place in the room's timeline: the id in the events stream, negative for history that was fetched later.
    -- NULL: not in the timeline (an outlier, rejected, or soft-failed).
    pos        bigint,
    depth      bigint   NOT NULL,
    sender_sid bigint   NOT NULL,          -- strings.string_id
    type_sid   bigint   NOT NULL,          -- strings.string_id
    state_key_sid bigint,                  -- strings.string_id; NULL: no state event
    origin_server_ts bigint NOT NULL,
    -- The numbered redaction event that took this one's content away; `json` then is the redacted form.
    redacted_by bigint,
    -- The state before this event is the mainline's after `state_base` (what holds since then or earlier, and still
    -- after it) with the changes of the row of state_deltas that `state_delta` numbers, if any.
    -- NULL: the mainline's just before `pos`, as for every event without a fork.
    state_base  bigint,
    state_delta bigint,
    writer_id  smallint NOT NULL,
    -- Bits: 1 rejected, 2 soft-failed, 4 outlier (its state before it is not known), 8 became the current state of
    -- its key at `pos`, 16 contains a url, 32 sent by a local user, 64 other keys of the current state changed at `pos`
    flags      smallint NOT NULL,
    -- What push rules make of it for the common member, in bits: 1 notify, 2 highlight
    push       smallint NOT NULL DEFAULT 0,
    event_id   text     NOT NULL,
    -- The members for whom push rules have another outcome: {"@user:server": bits}
    push_exceptions text,
    -- The root of the thread that the event is part of.
    thread_id  text,
    -- The device and transaction id that a local user sent it with.
    device_id  text,
    txn_id     text,
    -- The forward extremities after this event, where they are not just this event: a JSON list of event ids.
    heads      text,
    json       text     NOT NULL,
    PRIMARY KEY (room_nid, event_nid)
);
CREATE INDEX events_timeline ON events (room_nid, pos) WHERE pos IS NOT NULL;
CREATE INDEX events_id ON events (event_id);
-- For readers that fell behind: what was written between two positions. Rows lie nearly in this order already, and
-- such an index costs a message nothing.
CREATE INDEX events_pos ON events USING brin (pos) WITH (pages_per_range = 16, autosummarize = on);
-- Text compresses well and lz4 costs next to nothing to read.
ALTER TABLE events ALTER COLUMN json SET COMPRESSION lz4;

-- The room's resolved state over time, the mainline: what holds now …
CREATE TABLE room_state (
    room_nid  bigint NOT NULL,
    type_sid  bigint NOT NULL,
    key_sid   bigint NOT NULL,
    event_nid bigint NOT NULL,
    -- The stream id from which on it holds (it is part of the state before every later event).
    since     bigint NOT NULL,
    PRIMARY KEY (room_nid, type_sid, key_sid)
) WITH (fillfactor = 90);

-- … and what held once: from `since` until another took its place at `until`.
CREATE TABLE room_state_past (
    room_nid  bigint NOT NULL,
    type_sid  bigint NOT NULL,
    key_sid   bigint NOT NULL,
    since     bigint NOT NULL,
    until     bigint NOT NULL,
    event_nid bigint NOT NULL,
    PRIMARY KEY (room_nid, type_sid, key_sid, since)
);

-- Where the state before an event is not the mainline's: what differs. An event_nid of 0 says that the key is absent.
-- Numbered like the first event that has it; the events of one branch share a row until their state changes.
CREATE TABLE state_deltas (
    room_nid    bigint   NOT NULL,
    state_delta bigint   NOT NULL,
    type_sids  bigint[] NOT NULL,
    key_sids   bigint[] NOT NULL,
    event_nids bigint[] NOT NULL,
    PRIMARY KEY (room_nid, state_delta)
);

-- Every user's latest membership of every room, by the user.
CREATE TABLE memberships (
    user_sid   bigint   NOT NULL,          -- strings.string_id
    room_nid   bigint   NOT NULL,
    -- 0 leave, 1 join, 2 invite, 3 knock, 4 ban
    membership smallint NOT NULL,
    event_nid  bigint   NOT NULL,
    -- The id in the events stream at which it changed last.
    pos        bigint   NOT NULL,
    writer_id  smallint NOT NULL,
    sender_sid bigint   NOT NULL,
    forgotten  boolean  NOT NULL DEFAULT false,
    -- For invites and knocks of rooms whose state is not known here: the stripped state that came along.
    stripped_state text,
    PRIMARY KEY (user_sid, room_nid)
) WITH (fillfactor = 90);
CREATE INDEX memberships_room ON memberships (room_nid, membership);

-- Events that point at another: threads, edits, reactions, references, and (as `m.room.redaction`) redactions whose target
-- is not here yet.
CREATE TABLE relations (
    room_nid   bigint NOT NULL,
    parent_id  text   NOT NULL,
    event_nid  bigint NOT NULL,
    -- The place in the timeline, as `events.pos`.
    pos        bigint,
    rel_type   text   NOT NULL,
    type_sid   bigint NOT NULL,
    sender_sid bigint NOT NULL,
    -- The `key` of an annotation.
    key        text,
    PRIMARY KEY (room_nid, parent_id, event_nid)
);
-- Threads of a room, latest activity first.
CREATE INDEX relations_threads ON relations (room_nid, pos) WHERE rel_type = 'm.thread';

CREATE TABLE room_aliases (
    alias    text   PRIMARY KEY,
    room_nid bigint NOT NULL,
    creator  text   NOT NULL
);
CREATE INDEX room_aliases_room ON room_aliases (room_nid);

-- Push rules. A user without a row has the server's default rules.

-- What a user changed of the default rules, and the user's own rules: the whole in one JSON document, which is written
-- and read as one. It is the stream push_rules at the same time: a user's latest change.
CREATE TABLE push_rules (
    user_id   text     PRIMARY KEY,
    rules     text     NOT NULL,
    stream_id bigint   NOT NULL,
    writer_id smallint NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX push_rules_stream ON push_rules (stream_id);

-- Where notifications of a user are sent to.
CREATE TABLE pushers (
    user_id    text   NOT NULL,
    app_id     text   NOT NULL,
    pushkey    text   NOT NULL,
    -- The device that set it, which takes it along when it is logged out.
    device_id  text,
    -- The pusher in the form of the specification.
    pusher     text   NOT NULL,
    created_ts bigint NOT NULL,
    PRIMARY KEY (user_id, app_id, pushkey)
);
-- A pushkey that somebody else registers is no longer the earlier user's.
CREATE INDEX pushers_pushkey ON pushers (app_id, pushkey);

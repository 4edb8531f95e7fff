-- What processes say of themselves, so that all agree on who does what, whatever stands in each one's configuration:
-- the duties that a process would take a share of now, and where the others reach it.
ALTER TABLE instances ADD COLUMN duties  text[] NOT NULL DEFAULT '{}';
ALTER TABLE instances ADD COLUMN address text;

-- Access tokens that ended before their time, so that every process forgets them at once. Kept for a while only: what a process
-- remembers of a token it looks up again after some seconds anyway.
CREATE SEQUENCE stream_revocations AS bigint;
CREATE TABLE revocations (
    stream_id  bigint   PRIMARY KEY,
    writer_id  smallint NOT NULL,
    -- The SHA-256 of the token.
    token_hash bytea    NOT NULL,
    revoked_ts bigint   NOT NULL
);
CREATE INDEX revocations_by_age ON revocations (revoked_ts);

-- End-to-end encryption: the keys of devices and users, messages to devices, key backups. Rows of a user start their
-- primary key with the user. The devices themselves are in V03.

-- The identity keys of a device, as it uploaded them.
CREATE TABLE device_keys (
    user_id   text NOT NULL,
    device_id text NOT NULL,
    key_json  text NOT NULL,
    PRIMARY KEY (user_id, device_id)
);

-- Keys that are given out once each, in the order of `position`.
CREATE TABLE one_time_keys (
    user_id   text   NOT NULL,
    device_id text   NOT NULL,
    algorithm text   NOT NULL,
    key_id    text   NOT NULL,
    position  bigint GENERATED ALWAYS AS IDENTITY,
    key_json  text   NOT NULL,
    PRIMARY KEY (user_id, device_id, algorithm, key_id)
);
CREATE INDEX one_time_keys_order ON one_time_keys (user_id, device_id, algorithm, position);

-- Keys that are given out when no one-time key is left.
CREATE TABLE fallback_keys (
    user_id   text    NOT NULL,
    device_id text    NOT NULL,
    algorithm text    NOT NULL,
    key_id    text    NOT NULL,
    key_json  text    NOT NULL,
    used      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (user_id, device_id, algorithm)
);

-- How many keys of each algorithm a device has left, as of its row in the device_lists stream: the outcome of counting
-- the two tables above, which everyone who changes them does under a lock on this row.
CREATE TABLE device_key_counts (
    user_id   text     NOT NULL,
    device_id text     NOT NULL,
    stream_id bigint   NOT NULL,
    writer_id smallint NOT NULL,
    -- {"one_time": {algorithm: count}, "unused_fallback": [algorithm]}
    counts    text     NOT NULL,
    PRIMARY KEY (user_id, device_id)
) WITH (fillfactor = 70);
CREATE INDEX device_key_counts_stream ON device_key_counts (stream_id);

-- A user's master, self-signing and user-signing key, as uploaded.
CREATE TABLE cross_signing_keys (
    user_id    text NOT NULL,
    usage      text NOT NULL,
    public_key text NOT NULL,
    key_json   text NOT NULL,
    PRIMARY KEY (user_id, usage)
);

-- Signatures that were added to a key after its upload. `key_id` is a device id or the public part of a master key.
CREATE TABLE key_signatures (
    user_id        text NOT NULL,
    key_id         text NOT NULL,
    signer_user_id text NOT NULL,
    -- "ed25519:<device id or public key>"
    signer_key_id  text NOT NULL,
    signature      text NOT NULL,
    PRIMARY KEY (user_id, key_id, signer_user_id, signer_key_id)
);

-- What a user signed of others' keys.
CREATE INDEX key_signatures_signer ON key_signatures (signer_user_id) WHERE signer_user_id <> user_id;

-- The stream device_lists: the latest change of a user's devices or keys, by each writer.
CREATE TABLE device_list_changes (
    user_id   text     NOT NULL,
    -- Empty: everyone who shares a room with the user learns of it. Else only this user, who signed the other's keys.
    seen_by   text     NOT NULL,
    writer_id smallint NOT NULL,
    stream_id bigint   NOT NULL,
    PRIMARY KEY (user_id, seen_by, writer_id)
) WITH (fillfactor = 70);
CREATE INDEX device_list_changes_stream ON device_list_changes (stream_id);

-- The stream to_device: messages that their device has not confirmed yet.
CREATE TABLE to_device_messages (
    user_id   text     NOT NULL,
    device_id text     NOT NULL,
    stream_id bigint   NOT NULL,
    writer_id smallint NOT NULL,
    sender    text     NOT NULL,
    type      text     NOT NULL,
    content   text     NOT NULL,
    PRIMARY KEY (user_id, device_id, stream_id)
);
CREATE INDEX to_device_messages_stream ON to_device_messages (stream_id);

-- The transaction ids that devices sent messages with, kept for as long as a client may try again.
CREATE TABLE to_device_transactions (
    user_id   text   NOT NULL,
    device_id text   NOT NULL,
    txn_id    text   NOT NULL,
    sent_ts   bigint NOT NULL,
    PRIMARY KEY (user_id, device_id, txn_id)
);
CREATE INDEX to_device_transactions_sent ON to_device_transactions (sent_ts);

-- Key backups. A deleted version leaves its row, so that its number is never given out again.
CREATE TABLE key_backup_versions (
    user_id   text    NOT NULL,
    version   bigint  NOT NULL,
    algorithm text    NOT NULL,
    auth_data text    NOT NULL,
    -- Raised by every change of the keys.
    etag      bigint  NOT NULL DEFAULT 0,
    count     bigint  NOT NULL DEFAULT 0,
    deleted   boolean NOT NULL DEFAULT false,
    PRIMARY KEY (user_id, version)
);

CREATE TABLE key_backup_sessions (
    user_id             text    NOT NULL,
    version             bigint  NOT NULL,
    room_id             text    NOT NULL,
    session_id          text    NOT NULL,
    first_message_index bigint  NOT NULL,
    forwarded_count     bigint  NOT NULL,
    is_verified         boolean NOT NULL,
    -- Encrypted by the client: a JSON object that is nobody else's business.
    session_data        text    NOT NULL,
    PRIMARY KEY (user_id, version, room_id, session_id)
);

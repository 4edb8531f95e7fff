-- Users, their sessions and tokens, and what registration and log-in remember. Rows of a user start their primary key
-- with the user; tokens are found by the hash alone. Secrets are never stored, only their SHA-256.

CREATE TABLE users (
    user_id       text    PRIMARY KEY,
    -- bcrypt. NULL: there is no log-in by password.
    password_hash text,
    created_ts    bigint  NOT NULL,
    is_guest      boolean NOT NULL DEFAULT false,
    is_admin      boolean NOT NULL DEFAULT false,
    -- Gone for good; the name is never given out again.
    deactivated   boolean NOT NULL DEFAULT false,
    -- Wants what it sent to be kept from users who have not seen it yet.
    erased        boolean NOT NULL DEFAULT false,
    -- Can do nothing but log out.
    locked        boolean NOT NULL DEFAULT false,
    -- Can read, but not write.
    suspended     boolean NOT NULL DEFAULT false,
    -- Synapse's word for users of a special kind: 'support', 'bot'.
    user_type     text
);

-- The localparts of guests and of users who asked for no name.
CREATE SEQUENCE generated_localparts AS bigint;

-- The profile, one row per field; values are JSON.
CREATE TABLE profile_fields (
    user_id text NOT NULL,
    name    text NOT NULL,
    value   text NOT NULL,
    PRIMARY KEY (user_id, name)
);

-- Addresses for getting in touch with the user.
CREATE TABLE threepids (
    user_id      text   NOT NULL,
    medium       text   NOT NULL,
    address      text   NOT NULL,
    validated_ts bigint NOT NULL,
    added_ts     bigint NOT NULL,
    PRIMARY KEY (user_id, medium, address)
);
CREATE UNIQUE INDEX threepids_address ON threepids (medium, address);

-- A device is a session: made by log-in, gone with log-out.
CREATE TABLE devices (
    user_id      text   NOT NULL,
    device_id    text   NOT NULL,
    display_name text,
    created_ts   bigint NOT NULL,
    -- Who used it last, accurate to some minutes.
    last_seen_ts         bigint,
    last_seen_ip         text,
    last_seen_user_agent text,
    PRIMARY KEY (user_id, device_id)
) WITH (fillfactor = 80);

CREATE TABLE access_tokens (
    token_hash   bytea   PRIMARY KEY,
    user_id      text    NOT NULL,
    -- NULL: of no device, as administrators have them.
    device_id    text,
    -- NULL: valid until log-out.
    expires_ts   bigint,
    -- When the user has last proven to be who they are.
    validated_ts bigint  NOT NULL,
    -- The refresh token that was given out along with it. Its predecessor is revoked when this is used.
    refresh_hash bytea,
    used         boolean NOT NULL DEFAULT false
);
CREATE INDEX access_tokens_device ON access_tokens (user_id, device_id);
CREATE INDEX access_tokens_refresh ON access_tokens (refresh_hash) WHERE refresh_hash IS NOT NULL;

-- A row is a token that is still good: those that were replaced and whose successor was used are deleted.
CREATE TABLE refresh_tokens (
    token_hash         bytea  PRIMARY KEY,
    user_id            text   NOT NULL,
    device_id          text   NOT NULL,
    expires_ts         bigint,
    -- When the session ends, however often it is refreshed.
    session_expires_ts bigint,
    -- The refresh token that was given out for it.
    next_hash          bytea
);
CREATE INDEX refresh_tokens_device ON refresh_tokens (user_id, device_id);
CREATE INDEX refresh_tokens_next ON refresh_tokens (next_hash) WHERE next_hash IS NOT NULL;

-- Tokens to log in with once (m.login.token).
CREATE TABLE login_tokens (
    token_hash bytea  PRIMARY KEY,
    user_id    text   NOT NULL,
    expires_ts bigint NOT NULL
);
CREATE INDEX login_tokens_expiry ON login_tokens (expires_ts);

-- Tokens that prove to others who somebody is.
CREATE TABLE openid_tokens (
    token_hash bytea  PRIMARY KEY,
    user_id    text   NOT NULL,
    expires_ts bigint NOT NULL
);
CREATE INDEX openid_tokens_expiry ON openid_tokens (expires_ts);

-- Tokens to register with.
CREATE TABLE registration_tokens (
    token        text    PRIMARY KEY,
    -- NULL: any number of times.
    uses_allowed integer,
    completed    integer NOT NULL DEFAULT 0,
    expires_ts   bigint
);

-- User-interactive authentication under way.
CREATE TABLE ui_auth_sessions (
    session_id         text   PRIMARY KEY,
    created_ts         bigint NOT NULL,
    -- What it is for; another operation needs another session.
    user_id            text,
    operation          text   NOT NULL,
    -- Of the request without its `auth`. NULL: the request may change on the way.
    request_hash       bytea,
    completed          text[] NOT NULL DEFAULT '{}',
    -- The token that the stage m.login.registration_token was passed with.
    registration_token text,
    -- Who was registered in the end: a repeated request gets the same answer.
    registered_user_id text
);
CREATE INDEX ui_auth_sessions_created ON ui_auth_sessions (created_ts);
CREATE INDEX ui_auth_sessions_registration_token ON ui_auth_sessions (registration_token)
 WHERE registration_token IS NOT NULL AND registered_user_id IS NULL;

-- Nonces of the registration by shared secret.
CREATE TABLE registration_nonces (
    nonce      text   PRIMARY KEY,
    expires_ts bigint NOT NULL
);

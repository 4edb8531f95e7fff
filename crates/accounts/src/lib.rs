//! Users, access tokens, log-in, registration, user-interactive authentication, profiles, account data.

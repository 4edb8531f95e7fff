//! The harness of the black-box tests: private servers, real daemons, and clients that only speak HTTP.

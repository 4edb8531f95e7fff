//! The PDU formats: hashes, signatures, authorization and state resolution of room versions 1 to 12, without I/O.

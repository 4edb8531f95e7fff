//! How accounts come to be.

use ruma::OwnedRoomAliasId;

use crate::{
    section::{all_defaulted, section},
    value::{OneOrMany, Secret, choice},
};

section! {
    /// Registration of new accounts, and what they start with.
    Registration {
        /// Whether anyone may register.
        enable_registration: bool = false,
        /// Whether registration may ask for nothing at all (no e-mail address, captcha or token).
        enable_registration_without_verification: bool = false,
        /// Whether registration asks for a token that an administrator made.
        registration_requires_token: bool = false,
        /// What kinds of address registration asks for: `email`, `msisdn`.
        registrations_require_3pid: OneOrMany<ThirdPartyMedium> = [],
        /// Whether no phone number is asked for at registration.
        disable_msisdn_registration: bool = false,
        /// A secret that lets its holder register accounts, also where registration is off: for
        /// `myelin-ctl register-user`.
        registration_shared_secret: Option<Secret> = null,
        /// Whether guests may look around without an account.
        allow_guest_access: bool = false,
        /// Whether `/register/available` says that a name is free although it is taken.
        inhibit_user_in_use_error: bool = false,
        /// Whether names may begin with `_`, which application services like to use.
        allow_underscore_prefixed_registration: bool = false,
        /// Rooms that new accounts join.
        auto_join_rooms: Vec<OwnedRoomAliasId> = [],
        /// Whether to make these rooms when they don't exist.
        autocreate_auto_join_rooms: bool = true,
        /// Whether rooms that are made so may be joined from other servers.
        autocreate_auto_join_rooms_federated: bool = true,
        /// The preset of rooms that are made so: `public_chat`, `private_chat` or `trusted_private_chat`.
        autocreate_auto_join_room_preset: RoomPreset = "public_chat",
        /// The local part of the user who makes these rooms and invites to them. Default: the first to register.
        auto_join_mxid_localpart: Option<String> = null,
        /// Whether guests join them too.
        auto_join_rooms_for_guests: bool = true,
    }
}

choice! {
    /// A kind of address outside Matrix.
    ThirdPartyMedium: "a kind of address" {
        /// An e-mail address.
        Email = "email",
        /// A phone number.
        Msisdn = "msisdn",
    }
}

choice! {
    /// A [preset](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom) of new rooms.
    RoomPreset: "a room preset" {
        /// Anyone may join.
        PublicChat = "public_chat",
        /// Only who is invited may join.
        PrivateChat = "private_chat",
        /// Like `private_chat`, and everyone who is invited gets the creator's power.
        TrustedPrivateChat = "trusted_private_chat",
    }
}

all_defaulted!(Registration);

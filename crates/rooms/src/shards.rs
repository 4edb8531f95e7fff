//! Which writer a room belongs to.

use myelin_leases::Duty;
use ruma::RoomId;

/// How many shards the rooms of a deployment are spread over. Fixed for ever: all processes must agree on it.
pub const SHARDS: u8 = 128;

/// The shard of a room. Every version of the program must give the same, so this is our own hash (FNV-1a).
pub fn shard_of(room_id: &RoomId) -> u8 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in room_id.as_str().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // Spreads what only the last bytes made different (the finalizer of MurmurHash3).
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    u8::try_from((hash >> 33) % u64::from(SHARDS)).expect("the remainder is below 128")
}

/// The writing of rooms, as it is shared out.
pub const DUTY: Duty = Duty { name: "events", shards: SHARDS as u16 };

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    #[test]
    fn shards_stay_what_they_are() {
        let shards = [room_id!("!a:x"), room_id!("!b:x"), room_id!("!hash")].map(shard_of);
        assert_eq!(shards, SHARDS_OF_ABOVE, "running processes of another version would disagree");
        assert!(shards.iter().all(|shard| *shard < SHARDS));
    }

    const SHARDS_OF_ABOVE: [u8; 3] = [73, 64, 13];
}

//! Which writer a room belongs to.

use myelin_leases::Duty;
use ruma::RoomId;

/// How many shards the rooms of a deployment are spread over. Fixed for ever: all processes must agree on it.
pub const SHARDS: u8 = 128;

/// The shard of a room. All processes must agree on it, and reverse proxies do too: this is what nginx's `hash` gives over 128
/// servers (<https://nginx.org/en/docs/http/ngx_http_upstream_module.html#hash>), so that one that knows the writers sends each
/// request to the right one.
pub fn shard_of(room_id: &RoomId) -> u8 {
    let hash = (crc32fast::hash(shard_key(room_id).as_bytes()) >> 16) & 0x7fff;
    u8::try_from(hash % u32::from(SHARDS)).expect("the remainder is below 128")
}

/// What of a room id is hashed: what looks the same in every URL, however that is encoded.
fn shard_key(room_id: &RoomId) -> &str {
    let opaque = room_id.as_str().trim_start_matches('!');
    let end =
        opaque.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').unwrap_or(opaque.len());
    if end == 0 { room_id.as_str() } else { &opaque[..end] }
}

/// Which of these processes writes each shard, while all of them live.
pub fn writers_of_shards<'a>(names: &[&'a str]) -> Vec<&'a str> {
    (0..DUTY.shards).filter_map(|shard| DUTY.heir(shard, names.iter().copied())).collect()
}

/// The writing of rooms, as it is shared out.
pub const DUTY: Duty = Duty { name: "events", shards: SHARDS as u16 };

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    #[test]
    fn shards_stay_what_they_are() {
        let shards = [room_id!("!a:x"), room_id!("!b.c:x"), room_id!("!hash")].map(shard_of);
        assert_eq!(shards, SHARDS_OF_ABOVE, "running processes of another version would disagree");
        assert!(shards.iter().all(|shard| *shard < SHARDS));
    }

    const SHARDS_OF_ABOVE: [u8; 3] = [55, 62, 56];
}

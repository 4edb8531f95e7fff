//! The signature of a registration by who knows `registration_shared_secret`
//! ([Synapse](https://element-hq.github.io/synapse/latest/admin_api/register_api.html)).

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

/// What is signed: an HMAC-SHA1 over all of it, so that nothing can be changed on the way, nor the nonce used twice.
#[derive(Clone, Copy, Debug)]
pub struct SharedSecretRegistration<'a> {
    /// What the server gave for this registration.
    pub nonce: &'a str,
    /// The name. Neither it nor the password may have a NUL in it, which stands between them.
    pub username: &'a str,
    /// The password.
    pub password: &'a str,
    /// The account may use the admin API.
    pub is_admin: bool,
    /// `support` or `bot`, for users of a special kind.
    pub user_type: Option<&'a str>,
}

impl SharedSecretRegistration<'_> {
    /// The signature, in hexadecimal.
    pub fn sign(&self, secret: &str) -> String {
        hex::encode(self.hmac(secret).finalize().into_bytes())
    }

    /// Whether a signature is right; how long this takes does not tell how wrong it is.
    pub fn is_signed(&self, secret: &str, mac: &str) -> bool {
        hex::decode(mac).is_ok_and(|mac| self.hmac(secret).verify_slice(&mac).is_ok())
    }

    fn hmac(&self, secret: &str) -> Hmac<Sha1> {
        let mut hmac = Hmac::new_from_slice(secret.as_bytes()).expect("an HMAC takes keys of any length");
        let admin = if self.is_admin { "admin" } else { "notadmin" };
        hmac.update([self.nonce, self.username, self.password, admin].join("\0").as_bytes());
        if let Some(user_type) = self.user_type {
            hmac.update(b"\0");
            hmac.update(user_type.as_bytes());
        }
        hmac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_covers_all_particulars() {
        let registration = SharedSecretRegistration {
            nonce: "thisisanonce",
            username: "pepper_roni",
            password: "pizza",
            is_admin: true,
            user_type: None,
        };
        let good = registration.sign("shared_secret");
        // printf 'thisisanonce\0pepper_roni\0pizza\0admin' | openssl dgst -sha1 -hmac shared_secret
        assert_eq!(good, "48715842ad67d5dc9a9ee938a3bda4fcfae8d7c7");
        let check = |change: &dyn Fn(&mut SharedSecretRegistration<'static>),
                     secret: &str,
                     mac: &str,
                     is_good: bool| {
            let mut registration = registration;
            change(&mut registration);
            assert_eq!(registration.is_signed(secret, mac), is_good, "{registration:?} {secret} {mac}");
        };
        check(&|_| {}, "shared_secret", &good, true);
        check(&|_| {}, "other", &good, false);
        check(&|_| {}, "shared_secret", "", false);
        check(&|_| {}, "shared_secret", "no hex", false);
        check(&|registration| registration.nonce = "another", "shared_secret", &good, false);
        check(&|registration| registration.username = "pepper", "shared_secret", &good, false);
        check(&|registration| registration.password = "pizzas", "shared_secret", &good, false);
        check(&|registration| registration.is_admin = false, "shared_secret", &good, false);
        check(&|registration| registration.user_type = Some("bot"), "shared_secret", &good, false);
    }
}

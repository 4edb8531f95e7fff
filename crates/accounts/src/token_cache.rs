//! The access tokens that were used of late, so that a request costs no query to authenticate.

use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::sync::Cache;

use crate::{Login, TokenHash};

pub(crate) struct TokenCache {
    logins: Cache<TokenHash, Arc<Login>>,
    /// How often something was forgotten. Held while it changes and while a log-in is added.
    generation: Mutex<u64>,
}

/// The state of the cache before the database was asked.
#[derive(Clone, Copy)]
pub(crate) struct Generation(u64);

impl TokenCache {
    pub fn new(capacity: usize) -> Self {
        Self { logins: Cache::new(capacity), generation: Mutex::new(0) }
    }

    pub fn get(&self, token: TokenHash) -> Option<Arc<Login>> {
        self.logins.get(&token)
    }

    pub fn generation(&self) -> Generation {
        Generation(*self.generation.lock())
    }

    /// Adds what the database said about a token, unless something was forgotten since `before`: it may have been this
    /// very token, revoked while the answer was on its way.
    pub fn insert(&self, before: Generation, token: TokenHash, login: Arc<Login>) {
        let generation = self.generation.lock();
        if *generation == before.0 {
            self.logins.insert(token, login);
        }
    }

    pub fn forget(&self, tokens: &[TokenHash]) {
        if tokens.is_empty() {
            return;
        }
        let mut generation = self.generation.lock();
        *generation += 1;
        for token in tokens {
            self.logins.remove(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticate::tests::login;

    #[test]
    fn a_token_that_is_revoked_while_it_is_read_does_not_stay() {
        let cache = TokenCache::new(10);
        let token = TokenHash([1; 32]);
        let before = cache.generation();
        cache.forget(&[token]);
        cache.insert(before, token, login(token));
        assert!(cache.get(token).is_none());

        cache.insert(cache.generation(), token, login(token));
        assert!(cache.get(token).is_some());
        cache.forget(&[token]);
        assert!(cache.get(token).is_none());
    }
}

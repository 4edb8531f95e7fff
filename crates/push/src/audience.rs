//! The members of a room as push rules see them.

use std::{collections::HashMap, sync::Arc};

use ruma::{OwnedUserId, UserId};

use crate::{
    compile::CompiledRules,
    pattern::{contains_words, is_word_char},
};

/// The local members of a room who may be notified, kept by whoever writes the room: told of every member who comes,
/// goes or gets another name, it needs no look at the others when an event is sent.
#[derive(Debug, Default)]
pub struct Audience {
    pub(crate) members: HashMap<OwnedUserId, Member>,
    names: NameIndex,
    /// The members with rules of their own.
    pub(crate) custom: HashMap<OwnedUserId, Arc<CompiledRules>>,
    /// Members whose rules are not known yet, or have changed.
    pub(crate) unknown: Vec<OwnedUserId>,
    /// How many changes of rules were taken in.
    pub(crate) generation: u64,
}

#[derive(Debug)]
pub(crate) struct Member {
    /// In lower case.
    pub display_name: Option<Box<str>>,
}

impl Audience {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A local user is a member now, with this display name in the room.
    pub fn set_member(&mut self, user_id: &UserId, display_name: Option<&str>) {
        let display_name = display_name.map(str::trim).filter(|name| !name.is_empty());
        let display_name: Option<Box<str>> = display_name.map(|name| name.to_lowercase().into());
        if let Some(member) = self.members.get_mut(user_id) {
            let former = std::mem::replace(&mut member.display_name, display_name.clone());
            if let Some(former) = former {
                self.names.remove(&former, user_id);
            }
        } else {
            self.members.insert(user_id.to_owned(), Member { display_name: display_name.clone() });
            self.names.insert(user_id.localpart(), user_id);
            self.unknown.push(user_id.to_owned());
        }
        if let Some(display_name) = display_name {
            self.names.insert(&display_name, user_id);
        }
    }

    /// A local user is no member any more.
    pub fn remove_member(&mut self, user_id: &UserId) {
        let Some(member) = self.members.remove(user_id) else { return };
        self.names.remove(user_id.localpart(), user_id);
        if let Some(display_name) = member.display_name {
            self.names.remove(&display_name, user_id);
        }
        self.custom.remove(user_id);
        self.unknown.retain(|unknown| unknown != user_id);
    }

    /// The local members.
    pub fn members(&self) -> impl Iterator<Item = &UserId> {
        self.members.keys().map(|user_id| &**user_id)
    }

    /// How many local members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no local member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The members whose localpart or display name may be in a text, which is in lower case.
    pub(crate) fn maybe_named<'a>(&'a self, lower_text: &'a str) -> impl Iterator<Item = &'a OwnedUserId> {
        self.names.candidates(lower_text)
    }

    /// Whether a text, in lower case, has the display name of a member.
    pub(crate) fn has_display_name(&self, user_id: &UserId, lower_text: &str) -> bool {
        let name = self.members.get(user_id).and_then(|member| member.display_name.as_deref());
        name.is_some_and(|name| contains_words(lower_text, name))
    }
}

/// Names by the first word that is in them, so that the words of a text find the few names that it may have.
///
/// A name's first run of word characters is a whole run of word characters in every text that has the name between
/// word boundaries.
#[derive(Debug, Default)]
struct NameIndex {
    by_word: HashMap<Box<str>, Vec<OwnedUserId>>,
}

impl NameIndex {
    fn insert(&mut self, name: &str, user_id: &UserId) {
        self.by_word.entry(first_word(name).into()).or_default().push(user_id.to_owned());
    }

    fn remove(&mut self, name: &str, user_id: &UserId) {
        let word = first_word(name);
        let Some(users) = self.by_word.get_mut(word) else { return };
        // A user may be there twice, once for each name.
        if let Some(index) = users.iter().position(|user| user == user_id) {
            users.swap_remove(index);
        }
        if users.is_empty() {
            self.by_word.remove(word);
        }
    }

    fn candidates<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a OwnedUserId> {
        // Names without any word character are under the empty word.
        let words = text.split(|char| !is_word_char(char)).filter(|word| !word.is_empty());
        std::iter::once("").chain(words).filter_map(|word| self.by_word.get(word)).flatten()
    }
}

fn first_word(name: &str) -> &str {
    name.split(|char| !is_word_char(char)).find(|word| !word.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma::user_id;

    use super::*;

    #[test]
    fn a_member_is_found_by_either_name_until_they_change_it_or_go() {
        let mut audience = Audience::new();
        let amy = user_id!("@amy.r:x");
        let found =
            |audience: &Audience, text: &str| audience.maybe_named(text).any(|user_id| user_id == amy);
        audience.set_member(amy, Some("Queen Amidala"));
        assert!(found(&audience, "hail, queen amidala!") && found(&audience, "amy.r?"));
        assert!(audience.has_display_name(amy, "hail, queen amidala!"));
        assert!(!audience.has_display_name(amy, "a queen"));
        audience.set_member(amy, Some("✨"));
        assert!(!found(&audience, "queen amidala") || !audience.has_display_name(amy, "queen amidala"));
        assert!(audience.has_display_name(amy, "so ✨ you"));
        audience.set_member(amy, Some("  "));
        assert!(!audience.has_display_name(amy, "so   you"));
        audience.remove_member(amy);
        audience.remove_member(amy);
        assert!(audience.is_empty() && audience.names.by_word.is_empty() && audience.unknown.is_empty());
    }

    proptest! {
        #[test]
        fn whoever_is_named_is_among_the_candidates(name in "[ab é_]{1,6}", before in "[ab é]{0,4}", after in "[ab é]{0,4}") {
            let user_id = user_id!("@zzz:x");
            let mut audience = Audience::new();
            audience.set_member(user_id, Some(&name));
            let text = format!("{before}{name}{after}");
            if audience.has_display_name(user_id, &text) {
                prop_assert!(audience.maybe_named(&text).any(|found| found == user_id));
            }
        }
    }
}

//! Aliases and the public list of rooms.

use crate::{
    section::{all_defaulted, section},
    value::{Glob, choice},
};

section! {
    /// Aliases and the public list of rooms.
    RoomDirectory {
        /// Whether the list of public rooms can be read and searched.
        enable_room_list_search: bool = true,
        /// Whether the list is shown without an access token.
        allow_public_rooms_without_auth: bool = false,
        /// Whether other servers see the list.
        allow_public_rooms_over_federation: bool = false,
        /// Whether only members of a room can give it an alias.
        require_membership_for_aliases: bool = true,
        /// Who can make which aliases: the first rule that fits decides, and without one it is denied. Default: everyone
        /// can make all.
        alias_creation_rules: Option<Vec<DirectoryRule>> = null,
        /// Who can publish which rooms in the list, in the same way. Default: nobody but administrators.
        room_list_publication_rules: Option<Vec<DirectoryRule>> = null,
    }
}

section! {
    /// A rule for aliases or publications. It fits when all its patterns do.
    DirectoryRule {
        /// Pattern of the user's ID.
        user_id: Glob = "*",
        /// Pattern of the alias; for publications, of any alias of the room.
        alias: Glob = "*",
        /// Pattern of the room's ID.
        room_id: Glob = "*",
        /// `allow` or `deny`.
        action: RuleAction = "allow",
    }
}

choice! {
    /// What a rule says.
    RuleAction: "what the rule says" {
        /// It may be done.
        Allow = "allow",
        /// It may not be done.
        Deny = "deny",
    }
}

all_defaulted!(RoomDirectory);

impl DirectoryRule {
    /// Whether `rules` let `user_id` make `alias` for `room_id`, or publish the room that has `aliases`.
    #[must_use]
    pub fn allow<'a>(
        rules: &[Self],
        user_id: &str,
        room_id: &str,
        aliases: impl Iterator<Item = &'a str> + Clone,
    ) -> bool {
        let fits = |rule: &&Self| {
            let mut aliases = aliases.clone().peekable();
            rule.user_id.matches(user_id)
                && rule.room_id.matches(room_id)
                // A room without an alias is covered by the pattern that asks for none.
                && if aliases.peek().is_none() {
                    rule.alias.as_str() == "*"
                } else {
                    aliases.any(|alias| rule.alias.matches(alias))
                }
        };
        rules.iter().find(fits).is_some_and(|rule| rule.action == RuleAction::Allow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(user_id: &str, alias: &str, action: RuleAction) -> DirectoryRule {
        DirectoryRule {
            user_id: Glob::new(user_id),
            alias: Glob::new(alias),
            room_id: Glob::new("*"),
            action,
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = [rule("@bad:*", "*", RuleAction::Deny), rule("*", "#public-*", RuleAction::Allow)];
        let check = |user: &str, aliases: &[&str], expected| {
            assert_eq!(
                DirectoryRule::allow(&rules, user, "!r:x", aliases.iter().copied()),
                expected,
                "{user} {aliases:?}"
            );
        };
        check("@alice:x", &["#public-a:x"], true);
        check("@alice:x", &["#private:x", "#public-a:x"], true);
        check("@alice:x", &["#private:x"], false);
        check("@alice:x", &[], false);
        check("@bad:x", &["#public-a:x"], false);
    }
}

//! What the rules make of an event.

use std::collections::BTreeMap;

use ruma::{OwnedUserId, UserId};

use crate::{
    Audience, PushBits, PushOutcome,
    compile::{COMMON, CompiledRules, DEFAULT, Matcher},
    event::EventView,
    pattern::contains_words,
};

/// An event with what was found out once for all members.
struct Evaluation<'e> {
    event: &'e EventView<'e>,
    audience: &'e Audience,
    /// The common rules that match, by number.
    common: Vec<bool>,
    /// Whether names in the body count.
    by_name: bool,
}

/// What the event means for all local members but its sender, and for whoever it invites, whose rules are `invited`
/// if they are not the default.
pub(crate) fn evaluate(
    event: &EventView<'_>,
    audience: &Audience,
    invited: Option<&CompiledRules>,
) -> PushOutcome {
    let evaluation = Evaluation {
        event,
        audience,
        common: COMMON.iter().map(|rule| rule.matches(event)).collect(),
        by_name: !event.has_mentions(),
    };
    let default = evaluation.bits_of_nobody();
    let mut exceptions: BTreeMap<OwnedUserId, PushBits> = BTreeMap::new();
    let mut note = |user_id: &UserId, rules: &CompiledRules| {
        if user_id != event.event.sender {
            let bits = evaluation.bits(user_id, rules);
            if bits != default {
                exceptions.insert(user_id.to_owned(), bits);
            }
        }
    };
    for (user_id, rules) in &audience.custom {
        note(user_id, rules);
    }
    for user_id in event.mentioned() {
        // Only those are asked whose rules are the default: the others have been.
        if let Some(user_id) = default_member(audience, user_id) {
            note(user_id, &DEFAULT);
        }
    }
    if evaluation.by_name
        && let Some(body) = event.lower_body()
    {
        for user_id in audience.maybe_named(body).filter(|user_id| !audience.custom.contains_key(*user_id)) {
            note(user_id, &DEFAULT);
        }
    }
    if let Some(user_id) = event.invited().and_then(|user_id| <&UserId>::try_from(user_id).ok()) {
        note(user_id, audience.custom.get(user_id).map(|rules| &**rules).or(invited).unwrap_or(&DEFAULT));
    }
    PushOutcome { default, exceptions: exceptions.into_iter().collect() }
}

/// The member of this name, if they have the default rules.
fn default_member<'a>(audience: &'a Audience, user_id: &str) -> Option<&'a UserId> {
    let user_id = <&UserId>::try_from(user_id).ok()?;
    let (user_id, _) = audience.members.get_key_value(user_id)?;
    (!audience.custom.contains_key(user_id)).then_some(&**user_id)
}

impl Evaluation<'_> {
    /// What it is for a member with the default rules whom the event does not mean in particular.
    fn bits_of_nobody(&self) -> PushBits {
        let matching = DEFAULT.0.iter().find(|rule| match &rule.matcher {
            Matcher::Common(number) => self.common[*number],
            _ => false,
        });
        matching.map_or(PushBits::NONE, |rule| rule.bits)
    }

    fn bits(&self, user_id: &UserId, rules: &CompiledRules) -> PushBits {
        rules
            .0
            .iter()
            .find(|rule| self.matches(user_id, &rule.matcher))
            .map_or(PushBits::NONE, |rule| rule.bits)
    }

    fn matches(&self, user_id: &UserId, matcher: &Matcher) -> bool {
        let event = self.event;
        match matcher {
            Matcher::Common(number) => self.common[*number],
            Matcher::InviteForMe => event.invited() == Some(user_id.as_str()),
            Matcher::IsUserMention => event.mentioned().any(|mentioned| mentioned == user_id.as_str()),
            Matcher::ContainsDisplayName => self.by_name && self.is_named(user_id),
            Matcher::ContainsUserName => {
                // Localparts are in lower case, but for some of long ago, which are not looked for then.
                self.by_name
                    && event.lower_body().is_some_and(|body| contains_words(body, user_id.localpart()))
            }
            Matcher::Conditions(conditions) => {
                conditions.iter().all(|condition| condition.matches(event, || self.is_named(user_id)))
            }
            Matcher::Words(pattern) => event.lower_body().is_some_and(|body| pattern.matches_words(body)),
            Matcher::Room(room_id) => room_id == event.event.room_id,
            Matcher::Sender(sender) => sender == event.event.sender,
        }
    }

    fn is_named(&self, user_id: &UserId) -> bool {
        self.event.lower_body().is_some_and(|body| self.audience.has_display_name(user_id, body))
    }
}

#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;

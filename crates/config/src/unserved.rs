//! Options of Synapse that have no effect here, with what is lost by that.

use crate::{document::Node, fault::Findings, load};

/// Each option of Synapse that no section reads, and what its holder has to do without.
///
/// When a part is built that serves an option, its row goes away and a section gets a field.
const UNSERVED: &[(&str, &str)] = &[
    ("account_threepid_delegates", "phone numbers can't be confirmed by another server"),
    ("account_validity", "accounts do not expire"),
    ("admin_contact", "nobody is named to users who meet a limit"),
    ("background_updates", "migrations run in their own way"),
    ("cas_config", "nobody can log in through CAS"),
    ("custom_template_directory", "texts of mails and pages are the built-in ones"),
    ("daemonize", "daemons stay in the foreground; let a service manager start them"),
    ("email", "no mail is sent"),
    ("gc_thresholds", "there is no garbage collector to tune"),
    ("jwt_config", "nobody can log in with a JSON web token"),
    ("matrix_authentication_service", "accounts are not managed by the Matrix Authentication Service"),
    ("modules", "Python modules can't be loaded"),
    ("oembed", "URLs are not previewed"),
    ("oidc_providers", "nobody can log in through OpenID Connect"),
    ("opentracing", "no traces are sent"),
    ("password_providers", "Python modules can't be loaded"),
    ("report_stats", "nothing is reported to anybody"),
    ("saml2_config", "nobody can log in through SAML"),
    ("sentry", "errors are not sent to Sentry"),
    ("server_notices", "the server sends no notices of its own"),
    ("soft_file_limit", "the limit of open files is the service manager's"),
    ("sso", "nobody can log in through single sign-on"),
    ("stats", "rooms and users are not counted"),
    ("user_consent", "users are not asked to agree to terms"),
];

/// The options of the table.
pub(crate) fn keys<'a>() -> impl Iterator<Item = &'a str> {
    UNSERVED.iter().map(|(key, _)| *key)
}

/// Warns of a top-level key that no section reads.
pub(crate) fn explain(key: &str, node: &Node, served: &[String], findings: &mut Findings) {
    findings.within(key, |findings| {
        if let Some((_, lost)) = UNSERVED.iter().find(|(unserved, _)| *unserved == key) {
            // Said only of what would have an effect: files made by Synapse hold many options that are off.
            if !node.is_null() {
                findings.warn(
                    &node.origin,
                    format!("is an option of Synapse that has no effect here: {lost}"),
                    "remove it, or live without it",
                );
            }
            return;
        }
        let remedy = match load::closest_key(key, served) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "remove it".to_owned(),
        };
        findings.warn(&node.origin, "is not an option; it has no effect", remedy);
    });
}

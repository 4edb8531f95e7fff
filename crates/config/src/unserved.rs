//! Options of Synapse that have no effect here, with what is lost by that.

use crate::{document::Node, fault::Findings, load};

/// Each option of Synapse that no section reads, and what its holder has to do without.
///
/// When a part is built that serves an option, its row goes away and a section gets a field.
const UNSERVED: &[(&str, &str)] = &[
    ("account_threepid_delegates", "phone numbers can't be confirmed by another server"),
    ("account_validity", "accounts do not expire"),
    ("admin_contact", "nobody is named to users who meet a limit"),
    ("allowed_avatar_mimetypes", "there is no media repository yet"),
    ("allowed_local_3pids", "no addresses are confirmed, so none are bound to accounts"),
    ("auto_accept_invites", "invites wait for their user"),
    ("background_updates", "migrations run in their own way"),
    ("cas_config", "nobody can log in through CAS"),
    ("custom_template_directory", "texts of mails and pages are the built-in ones"),
    ("daemonize", "daemons stay in the foreground; let a service manager start them"),
    ("default_identity_server", "no identity server is named to clients"),
    ("dynamic_thumbnails", "there is no media repository yet"),
    ("email", "no mail is sent"),
    ("enable_3pid_lookup", "no identity server is asked"),
    ("enable_authenticated_media", "there is no media repository yet"),
    ("enable_local_media_storage", "there is no media repository yet"),
    ("enable_registration_captcha", "registration asks for no captcha"),
    ("event_cache_size", "caches are bounded by `caches`"),
    ("federation_metrics_domains", "the age of other servers' events is not measured"),
    ("gc_min_interval", "there is no garbage collector to tune"),
    ("gc_thresholds", "there is no garbage collector to tune"),
    ("hs_disabled", "the server is not closed by it; stop its processes, or block clients at the proxy"),
    ("hs_disabled_message", "the server is not closed by `hs_disabled`"),
    ("jwt_config", "nobody can log in with a JSON web token"),
    ("key_server_signing_keys_path", "the server is no notary of other servers' keys"),
    ("limit_usage_by_mau", "monthly active users are not counted or limited"),
    ("manhole_settings", "there is no debug shell"),
    ("matrix_authentication_service", "accounts are not managed by the Matrix Authentication Service"),
    ("matrix_rtc", "no transports for calls are named to clients"),
    ("mau_appservice_trial_days", "monthly active users are not counted or limited"),
    ("mau_limit_alerting", "monthly active users are not counted or limited"),
    ("mau_limit_reserved_threepids", "monthly active users are not counted or limited"),
    ("mau_stats_only", "monthly active users are not counted or limited"),
    ("mau_trial_days", "monthly active users are not counted or limited"),
    ("max_avatar_size", "there is no media repository yet"),
    ("max_image_pixels", "there is no media repository yet"),
    ("max_mau_value", "monthly active users are not counted or limited"),
    ("max_pending_media_uploads", "there is no media repository yet"),
    ("max_spider_size", "URLs are not previewed"),
    ("media_retention", "there is no media repository yet"),
    ("media_storage_providers", "there is no media repository yet"),
    ("media_upload_limits", "there is no media repository yet"),
    ("metrics_flags", "each metric is there, or is not"),
    ("modules", "Python modules can't be loaded"),
    ("next_link_domain_whitelist", "no mail is sent, so no link is followed"),
    ("oembed", "URLs are not previewed"),
    ("oidc_providers", "nobody can log in through OpenID Connect"),
    ("opentracing", "no traces are sent"),
    ("password_providers", "Python modules can't be loaded"),
    ("prevent_media_downloads_from", "there is no media repository yet"),
    ("recaptcha_private_key", "registration asks for no captcha"),
    ("recaptcha_private_key_path", "registration asks for no captcha"),
    ("recaptcha_public_key", "registration asks for no captcha"),
    ("recaptcha_public_key_path", "registration asks for no captcha"),
    ("recaptcha_siteverify_api", "registration asks for no captcha"),
    ("report_stats", "nothing is reported to anybody"),
    ("report_stats_endpoint", "nothing is reported to anybody"),
    ("request_token_inhibit_3pid_errors", "no addresses are confirmed"),
    ("saml2_config", "nobody can log in through SAML"),
    ("sentry", "errors are not sent to Sentry"),
    ("server_context", "it labelled statistics, which are not reported"),
    ("server_notices", "the server sends no notices of its own"),
    ("soft_file_limit", "the limit of open files is the service manager's"),
    ("sso", "nobody can log in through single sign-on"),
    ("stats", "rooms and users are not counted"),
    ("templates", "texts of mails and pages are the built-in ones"),
    ("thumbnail_sizes", "there is no media repository yet"),
    ("unused_expiration_time", "there is no media repository yet"),
    ("url_preview_accept_language", "URLs are not previewed"),
    ("url_preview_enabled", "URLs are not previewed"),
    ("url_preview_ip_range_blacklist", "URLs are not previewed"),
    ("url_preview_ip_range_whitelist", "URLs are not previewed"),
    ("url_preview_url_blacklist", "URLs are not previewed"),
    ("use_frozen_dicts", "it tuned Python"),
    ("user_consent", "users are not asked to agree to terms"),
    ("user_types", "user types are `support` and `bot`"),
    ("web_client_location", "`/` leads nowhere; let the proxy redirect it"),
    ("worker_daemonize", "daemons stay in the foreground; let a service manager start them"),
    ("worker_manhole", "there is no debug shell"),
    ("worker_replication_http_tls", "whether a peer is spoken to by TLS stands in `instance_map`"),
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

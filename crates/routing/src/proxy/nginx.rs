//! What nginx is told.

use std::fmt::Write as _;

use super::{Group, Plan, SYNC};
use crate::Balance;

/// Connections to each group that are kept open per process of nginx.
const KEEPALIVE: usize = 64;

pub(super) fn write(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_to(plan, &mut text);
    text
}

fn write_to(plan: &Plan, text: &mut String) -> std::fmt::Result {
    text.push_str(HEAD);
    writeln!(text, "map \"$request_method:$request_uri\" $myelin_pool {{")?;
    writeln!(text, "    default otherwise;")?;
    for group in &plan.groups {
        for rule in &group.rules {
            let path = rule.path.trim_start_matches('^').replace('"', "\\\"");
            writeln!(text, "    \"~^(?:{}):{path}\" {};", rule.methods.join("|"), group.name)?;
        }
    }
    writeln!(text, "}}\n")?;
    writeln!(text, "# A /sync without a place to go on from costs a thousand times as much as one with.")?;
    writeln!(text, "map \"$myelin_pool:$arg_since\" $myelin_upstream {{")?;
    writeln!(text, "    default $myelin_pool;")?;
    writeln!(text, "    {SYNC}: initial_sync;\n}}\n")?;
    for group in plan.groups.iter().chain([&plan.initial_sync, &plan.otherwise]) {
        upstream(group, text)?;
    }
    server(plan, text)
}

fn upstream(group: &Group, text: &mut String) -> std::fmt::Result {
    writeln!(text, "upstream {} {{", group.name)?;
    let is_hashed = group.servers.len() > 1 && group.balance != Balance::Any;
    if is_hashed {
        let key = match group.balance {
            Balance::User => "$myelin_user",
            Balance::Room => "$myelin_room",
            Balance::Origin => "$myelin_origin",
            Balance::Uri | Balance::Any => "$request_uri",
        };
        let consistent = if group.shards.is_empty() { " consistent" } else { "" };
        writeln!(text, "    hash {key}{consistent};")?;
    }
    if !group.shards.is_empty() {
        writeln!(text, "    # A shard of rooms each, with the process that writes it while all live.")?;
        for server in &group.shards {
            writeln!(text, "    server {} max_fails=0;", group.servers[*server])?;
        }
        return writeln!(text, "    keepalive {KEEPALIVE};\n}}\n");
    }
    // A process that is away refuses at once and is back soon: there is no need to remember it.
    for server in &group.servers {
        writeln!(text, "    server {server} max_fails=0;")?;
    }
    // With a hash there are no backups; and with several servers, no need.
    for server in group.backups.iter().filter(|_| !is_hashed) {
        writeln!(text, "    server {server} max_fails=0 backup;")?;
    }
    writeln!(text, "    keepalive {KEEPALIVE};\n}}\n")
}

fn server(plan: &Plan, text: &mut String) -> std::fmt::Result {
    let front = &plan.front;
    writeln!(text, "server {{")?;
    match &front.certificate {
        Some((certificate, key)) => {
            writeln!(text, "    listen {} ssl http2;", front.listen)?;
            writeln!(text, "    ssl_certificate {};", certificate.display())?;
            writeln!(text, "    ssl_certificate_key {};", key.display())?;
        }
        None => writeln!(text, "    listen {};", front.listen)?,
    }
    writeln!(text, "    server_name {};", front.server_name.as_deref().unwrap_or("_"))?;
    text.push_str(PROXY);
    let has = |wanted: fn(&Group) -> bool| plan.groups.iter().any(wanted);
    if plan.otherwise.servers.len() + plan.otherwise.backups.len() > 1 {
        text.push_str(CHANGING);
    }
    if has(|group| group.waits) {
        text.push_str(WAITING);
    }
    if has(|group| group.uploads) {
        let max = front.max_upload_bytes;
        writeln!(text, "    # Up- and downloads go through without being gathered first.")?;
        writeln!(text, "    location ~ ^/_matrix/(?:media|client/v1/media|federation/v1/media)/ {{")?;
        writeln!(text, "        client_max_body_size {max};")?;
        writeln!(text, "        proxy_request_buffering off;\n        proxy_buffering off;")?;
        writeln!(
            text,
            "        proxy_read_timeout 300s;\n        proxy_pass http://$myelin_upstream;\n    }}"
        )?;
    }
    text.push_str("    location / {\n        proxy_pass http://$myelin_upstream;\n    }\n}\n");
    Ok(())
}

const HEAD: &str = r#"# Made by `myelin-ctl proxy-config nginx`. To be included in nginx's http block.
#
# Any process answers or passes on any request, so what stands here makes things cheaper and nothing else: what a user needs
# is in memory where the user's last request went, and so on.

# Whose request it is: the localpart in the access token, or else the whole token.
map $http_authorization $myelin_bearer {
    default $arg_access_token;
    "~^Bearer +(?<myelin_header_token>.+)$" $myelin_header_token;
}
map $myelin_bearer $myelin_user {
    default $myelin_bearer;
    "" $remote_addr;
    "~^syt_(?<myelin_localpart>.+)_[^_]+_[^_]+$" $myelin_localpart;
}
# Which room it is about: what of its id looks the same however the URL is encoded.
map $request_uri $myelin_room {
    default $request_uri;
    "~/rooms/(?:!|%21)(?<myelin_room_key>[A-Za-z0-9_-]+)" $myelin_room_key;
    "~/rooms/(?<myelin_room_id>[^/?]+)" $myelin_room_id;
    "~^/_matrix/federation/v[0-9]+/[a-z_]+/(?<myelin_federation_room_id>(?:!|%21)[^/?]+)" $myelin_federation_room_id;
}
map $http_authorization $myelin_origin {
    default $remote_addr;
    "~[ ,]origin=\"?(?<myelin_server>[^\",]+)" $myelin_server;
}

"#;

const PROXY: &str = r#"
    # Federation transactions come to two hundred events of 64 KiB.
    client_max_body_size 14m;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Myelin-Request-Id $request_id;
    proxy_connect_timeout 2s;
    # A request that was not sent is sent to the next process, whatever it is; one that was sent, only if that is safe.
    proxy_next_upstream error timeout http_502 http_503;
    proxy_next_upstream_timeout 30s;

"#;

const CHANGING: &str = r#"    # Events are sent under a transaction id, a membership that is given twice is one, and a request that makes a room makes one by
    # its name, so those that a process took which then stands still are sent again, to one that knows by then who writes the room.
    location ~ ^/_matrix/client/[^/]+/(?:rooms/[^/]+/(?:(?:send|state|redact)/|(?:ban|forget|invite|join|kick|leave|unban|upgrade)$)|(?:join|knock)/|createRoom$) {
        proxy_read_timeout 5s;
        proxy_next_upstream error http_502 http_503;
        error_page 504 = @myelin_again;
        proxy_pass http://$myelin_upstream;
    }
    location @myelin_again {
        proxy_pass http://otherwise;
    }
"#;

const WAITING: &str = r#"    # A long poll waits as long as the client says, which the server cuts off at ten minutes.
    location ~ ^/_matrix/client/[^/]+/(?:sync|events)$ {
        proxy_read_timeout 660s;
        proxy_pass http://$myelin_upstream;
    }
"#;

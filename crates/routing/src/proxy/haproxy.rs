//! What HAProxy is told.

use std::fmt::Write as _;

use super::{Group, Plan, SYNC};
use crate::Balance;

/// How many numbers a line may have: HAProxy takes 64 words.
const WORDS: usize = 32;

pub(super) fn write(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_to(plan, &mut text);
    text
}

fn write_to(plan: &Plan, text: &mut String) -> std::fmt::Result {
    text.push_str(HEAD);
    let front = &plan.front;
    writeln!(text, "frontend myelin")?;
    match &front.certificate {
        // HAProxy wants the chain and the key in one file.
        Some((certificate, _)) => {
            writeln!(text, "    bind {} ssl crt {}", front.listen, certificate.display())?
        }
        None => writeln!(text, "    bind {}", front.listen)?,
    }
    text.push_str(FRONT);
    for group in &plan.groups {
        for rule in &group.rules {
            // HAProxy's own quotes; a dollar sign would begin a variable in the double ones.
            writeln!(
                text,
                "    http-request set-var(txn.pool) str({}) if {{ method {} }} {{ pathq -m reg '{}' }}",
                group.name,
                rule.methods.join(" "),
                rule.path
            )?;
        }
    }
    writeln!(
        text,
        "    http-request set-var(txn.pool) str(initial_sync) if {{ var(txn.pool) -m str {SYNC} }} !{{ url_param(since) -m found }}"
    )?;
    writeln!(text, "    use_backend %[var(txn.pool)]\n")?;
    for group in plan.groups.iter().chain([&plan.initial_sync, &plan.otherwise]) {
        backend(group, text)?;
    }
    Ok(())
}

fn backend(group: &Group, text: &mut String) -> std::fmt::Result {
    writeln!(text, "backend {}", group.name)?;
    match group.balance {
        Balance::User => writeln!(text, "    balance hash var(txn.user)\n    hash-type consistent")?,
        Balance::Room => writeln!(text, "    balance hash var(txn.room)\n    hash-type consistent")?,
        Balance::Origin => writeln!(text, "    balance hash var(txn.origin)\n    hash-type consistent")?,
        Balance::Uri => writeln!(text, "    balance uri\n    hash-type consistent")?,
        Balance::Any => writeln!(text, "    balance leastconn")?,
    }
    if group.waits {
        writeln!(text, "    timeout server 660s")?;
    } else if group.uploads {
        writeln!(text, "    timeout server 300s")?;
    }
    if group.changes_rooms {
        writeln!(
            text,
            "    # What a process took which then stands still is sent again, where that is safe."
        )?;
        writeln!(text, "    http-request set-timeout server 5s if METH_PUT or {MEMBERSHIP}")?;
        writeln!(text, "    retry-on conn-failure empty-response response-timeout 503")?;
    }
    let servers = group.servers.iter().map(|server| (server, ""));
    let backups = group.backups.iter().map(|server| (server, " backup"));
    for (index, (server, backup)) in servers.chain(backups).enumerate() {
        let server = match server.strip_prefix("unix:") {
            Some(path) => format!("unix@{path}"),
            None => server.clone(),
        };
        writeln!(text, "    server s{index} {server} check{backup}")?;
    }
    for index in 0..group.servers.len() {
        let shards = group.shards.iter().enumerate().filter(|(_, server)| **server == index);
        let shards: Vec<String> = shards.map(|(shard, _)| shard.to_string()).collect();
        // While it is away, the hash chooses another.
        for shards in shards.chunks(WORDS) {
            writeln!(text, "    use-server s{index} if {{ var(txn.shard) -m int {} }}", shards.join(" "))?;
        }
    }
    writeln!(text)
}

/// Tells the requests about a room that give a membership, or a successor to the room.
const MEMBERSHIP: &str = "{ path_end /ban /forget /invite /join /kick /leave /unban /upgrade }";

const HEAD: &str = r#"# Made by `myelin-ctl proxy-config haproxy`.
#
# Any process answers or passes on any request, so what stands here makes things cheaper and nothing else: what a user needs
# is in memory where the user's last request went, and so on.

global
    maxconn 20000

defaults
    mode http
    timeout client 75s
    timeout connect 2s
    timeout server 60s
    timeout http-request 60s
    timeout http-keep-alive 60s
    option httpchk GET /health/ready
    default-server inter 1s fall 2 rise 1 maxconn 2000
    # A request that was not sent is sent to the next process, whatever it is; one that was sent, only if that is safe.
    option redispatch 1
    retries 3
    retry-on conn-failure empty-response 503

"#;

const FRONT: &str = r#"    # A request that may have made something is not sent twice. A membership that is given twice is one, and a room that is made under
    # the same name.
    http-request set-header X-Myelin-Request-Id %[uuid()]
    http-request disable-l7-retry if METH_POST !{ path_end /ban /forget /invite /join /kick /leave /unban /upgrade /createRoom } !{ path_sub /join/ /knock/ }
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto https if { ssl_fc }
    http-request set-header X-Forwarded-Proto http if !{ ssl_fc }
    # Whose request it is: the localpart in the access token, or else the whole token.
    http-request set-var(txn.user) src
    http-request set-var(txn.user) urlp(access_token) if { urlp(access_token) -m found }
    http-request set-var(txn.user) 'req.hdr(authorization),regsub("^Bearer +","")' if { req.hdr(authorization) -m found }
    http-request set-var(txn.user) 'var(txn.user),regsub("^syt_(.+)_[^_]+_[^_]+$","\1")' if { var(txn.user) -m beg syt_ }
    http-request set-var(txn.room) path
    http-request set-var(txn.room) 'path,regsub("^.*/rooms/(!|%21)([A-Za-z0-9_-]+).*$","\2")' if { path -m sub /rooms/ }
    # Which of the 128 shards of rooms that is in; each has one writer.
    http-request set-var(txn.shard) 'var(txn.room),crc32,div(65536),and(32767),mod(128)'
    http-request set-var(txn.origin) src
    http-request set-var(txn.origin) 'req.fhdr(authorization),regsub("^.*[ ,]origin=\"?([^\",]+).*$","\1")' if { req.fhdr(authorization) -m sub origin= }
    http-request set-var(txn.pool) str(otherwise)
"#;

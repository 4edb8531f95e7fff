//! What Kubernetes is told: a Service for each kind of process, and Ingresses for ingress-nginx.
//!
//! An Ingress can't tell methods apart, so requests are sorted by their paths alone; the processes pass on what comes to the
//! wrong one.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{Plan, SYNC};
use crate::{Balance, Operation, Pool, ServedBy, operations};

/// The kinds of processes that requests are sent to, by the label `app.kubernetes.io/component`, and what each is for.
const SERVICES: [(&str, ServedBy); 4] = [
    ("generic-worker", ServedBy::GenericWorker),
    ("media-repo", ServedBy::MediaRepo),
    ("user-dir", ServedBy::UserDir),
    ("main", ServedBy::Main),
];

pub(super) fn write(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_to(plan, &mut text);
    text
}

fn write_to(plan: &Plan, text: &mut String) -> std::fmt::Result {
    writeln!(
        text,
        "# Made by `myelin-ctl proxy-config kubernetes`, for ingress-nginx. The Deployments label their pods with"
    )?;
    writeln!(
        text,
        "# app.kubernetes.io/name: myelin and app.kubernetes.io/component: one of the roles below."
    )?;
    for (name, _) in SERVICES {
        service(name, text)?;
    }
    let by = |pool: Pool| move |operation: &&Operation| operation.pool == pool;
    let mut taken = BTreeSet::new();
    let mut ingress = |name: &str,
                       service: &str,
                       balance,
                       waits,
                       wanted: &dyn Fn(&&Operation) -> bool,
                       text: &mut String| {
        let paths: Vec<&str> = operations().iter().filter(wanted).map(|operation| operation.path).collect();
        let paths: BTreeSet<&str> = paths.into_iter().filter(|path| taken.insert(*path)).collect();
        write_ingress(plan, &Ingress { name, service, balance, waits }, &paths, text)
    };
    ingress(SYNC, "generic-worker", Balance::User, true, &by(Pool::Sync), text)?;
    ingress("media", "media-repo", Balance::Uri, false, &by(Pool::Media), text)?;
    ingress("login", "generic-worker", Balance::Any, false, &by(Pool::Login), text)?;
    ingress(
        "users",
        "user-dir",
        Balance::User,
        false,
        &|operation| operation.served_by == ServedBy::UserDir,
        text,
    )?;
    ingress("send", "generic-worker", Balance::Room, false, &by(Pool::Send), text)?;
    ingress("read", "generic-worker", Balance::Room, false, &by(Pool::Read), text)?;
    let in_workers = |operation: &&Operation| !matches!(operation.served_by, ServedBy::Main);
    ingress("workers", "generic-worker", Balance::User, false, &in_workers, text)?;
    let others = Ingress { name: "otherwise", service: "main", balance: Balance::Any, waits: false };
    write_ingress(plan, &others, &BTreeSet::from(["/"]), text)
}

fn service(name: &str, text: &mut String) -> std::fmt::Result {
    writeln!(
        text,
        "---
apiVersion: v1
kind: Service
metadata:
  name: myelin-{name}
  labels:
    app.kubernetes.io/name: myelin
    app.kubernetes.io/component: {name}
spec:
  selector:
    app.kubernetes.io/name: myelin
    app.kubernetes.io/component: {name}
  ports:
    - name: http
      port: 8008
      targetPort: http"
    )
}

struct Ingress<'a> {
    name: &'a str,
    service: &'a str,
    balance: Balance,
    waits: bool,
}

fn write_ingress(
    plan: &Plan,
    ingress: &Ingress<'_>,
    paths: &BTreeSet<&str>,
    text: &mut String,
) -> std::fmt::Result {
    let Ingress { name, service, balance, waits } = ingress;
    let host = plan.front.server_name.as_deref();
    writeln!(
        text,
        "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: myelin-{}
  annotations:
    nginx.ingress.kubernetes.io/use-regex: \"true\"
    nginx.ingress.kubernetes.io/proxy-body-size: \"{}\"
    nginx.ingress.kubernetes.io/proxy-connect-timeout: \"2\"
    nginx.ingress.kubernetes.io/proxy-read-timeout: \"{}\"
    nginx.ingress.kubernetes.io/proxy-next-upstream: \"error timeout http_502 http_503\"",
        name.replace('_', "-"),
        plan.front.max_upload_bytes,
        if *waits { 660 } else { 60 },
    )?;
    let key = match balance {
        Balance::User => Some("$http_authorization"),
        Balance::Room | Balance::Uri => Some("$request_uri"),
        Balance::Origin => Some("$remote_addr"),
        Balance::Any => None,
    };
    if let Some(key) = key {
        writeln!(text, "    nginx.ingress.kubernetes.io/upstream-hash-by: \"{key}\"")?;
    }
    writeln!(text, "spec:\n  ingressClassName: nginx\n  rules:")?;
    match host {
        Some(host) => writeln!(text, "    - host: {host}\n      http:\n        paths:")?,
        None => writeln!(text, "    - http:\n        paths:")?,
    }
    for path in paths {
        let expression = if *path == "/" { "/.*".to_owned() } else { expression(path) };
        writeln!(
            text,
            "          - path: '{expression}'\n            pathType: ImplementationSpecific\n            backend: {{ service: {{ name: myelin-{service}, port: {{ name: http }} }} }}"
        )?;
    }
    Ok(())
}

fn expression(path: &str) -> String {
    let segments = path.split('/').map(|segment| match segment {
        "v3" => "(v3|r0)".to_owned(),
        segment if segment.starts_with('{') => "[^/]+".to_owned(),
        segment => regex::escape(segment).replace("\\-", "-"),
    });
    format!("{}$", segments.collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::{Plan, tests::*};
    use crate::operations;

    #[test]
    fn every_path_is_in_one_ingress() {
        let text = Plan::new(&cluster(), front()).unwrap().kubernetes();
        for operation in operations() {
            let line = format!("- path: '{}'", super::expression(operation.path));
            let is_for_main = operation.served_by == crate::ServedBy::Main;
            let count = text.matches(&line).count();
            assert!(count == 1 || (is_for_main && count == 0), "{}: {count}", operation.path);
        }
    }
}

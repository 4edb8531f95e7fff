//! `proxy-config`: what the reverse proxy in front of the processes is told.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use myelin_config::{Address, ResourceName};
use myelin_daemon::Role;
use myelin_rooms::writers_of_shards;
use myelin_routing::{
    ServedBy,
    proxy::{Front, Plan, Process},
};

use crate::fleet::{Fleet, Member};

/// The proxies that we know the language of.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// nginx, to be included in its http block.
    Nginx,
    /// HAProxy, a whole configuration.
    Haproxy,
    /// Services and Ingresses, for ingress-nginx.
    Kubernetes,
}

/// Prints the configuration of a reverse proxy, made from the files of the processes.
#[derive(Debug, Args)]
pub(crate) struct ProxyConfig {
    /// The kind of proxy.
    kind: Kind,
    /// The shared configuration: files or folders.
    #[arg(short, long, default_value = "homeserver.yaml")]
    config_path: Vec<PathBuf>,
    /// The folder with a file for each worker.
    #[arg(short, long, value_name = "DIR")]
    workers: Option<PathBuf>,
    /// The address to listen on.
    #[arg(long, default_value = "0.0.0.0:80")]
    listen: SocketAddr,
    /// The host name that clients use. Default: any.
    #[arg(long)]
    server_name: Option<String>,
    /// The certificate chain, in PEM. For HAProxy, with the key in the same file.
    #[arg(long, requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's key, in PEM.
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
}

#[expect(clippy::print_stdout, reason = "a command line program talks to its terminal")]
pub(crate) fn run(arguments: &ProxyConfig) -> anyhow::Result<()> {
    let fleet = Fleet::load(&arguments.config_path, arguments.workers.as_deref())?;
    let certificate = arguments.tls_certificate.clone().zip(arguments.tls_key.clone());
    let plan = plan(&fleet, arguments.listen, arguments.server_name.clone(), certificate)?;
    let text = match arguments.kind {
        Kind::Nginx => plan.nginx(),
        Kind::Haproxy => plan.haproxy(),
        Kind::Kubernetes => plan.kubernetes(),
    };
    print!("{text}");
    Ok(())
}

/// Where everything goes in front of these processes.
pub(crate) fn plan(
    fleet: &Fleet,
    listen: SocketAddr,
    server_name: Option<String>,
    certificate: Option<(PathBuf, PathBuf)>,
) -> anyhow::Result<Plan> {
    let processes: Vec<Process> = fleet.members.iter().filter_map(process).collect();
    let uploads = fleet.members.first().map(|member| member.config.media.max_upload_size.as_u64());
    let is_writer = |process: &&Process| process.writes.iter().any(|stream| stream == "events");
    let writers: Vec<&str> =
        processes.iter().filter(is_writer).map(|process| process.name.as_str()).collect();
    let front = Front {
        listen,
        server_name,
        certificate,
        max_upload_bytes: uploads.unwrap_or_default(),
        writers_of_shards: writers_of_shards(&writers).into_iter().map(str::to_owned).collect(),
    };
    Ok(Plan::new(&processes, front)?)
}

/// `None` for those who have better to do than to answer requests.
fn process(member: &Member) -> Option<Process> {
    let at = |resource| member.address(&[resource]).as_ref().map(in_proxy);
    let writers = member.config.workers.stream_writers.by_stream();
    let writes = writers.filter(|(_, names)| names.contains(&member.process.name));
    Some(Process {
        name: member.process.name.clone(),
        role: match member.role() {
            Role::Main => ServedBy::Main,
            Role::MediaRepo => ServedBy::MediaRepo,
            Role::UserDir => ServedBy::UserDir,
            Role::GenericWorker => ServedBy::GenericWorker,
            Role::Pusher | Role::AppserviceSender | Role::FederationSender => return None,
        },
        writes: writes.map(|(stream, _)| stream.to_owned()).collect(),
        client: at(ResourceName::Client),
        federation: at(ResourceName::Federation),
        media: at(ResourceName::Media),
    })
}

/// An address as proxies name it.
fn in_proxy(address: &Address) -> String {
    match address {
        Address::Tcp { host, port, .. } => format!("{host}:{port}"),
        Address::Unix(_) => address.to_string(),
    }
}

//! The `nginx.conf` of an nginx that does nothing else.

use std::path::Path;

/// A main file for an nginx all of whose files are in `folder`, as whoever started it may be nobody special. It includes
/// `myelin.conf` from there, which is what [`Plan::nginx`](super::Plan::nginx) gives. `http` goes into its http block before that.
pub fn nginx_main(folder: &Path, http: &str) -> String {
    let folder = folder.display();
    format!(
        "worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
{http}
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    include {folder}/myelin.conf;
}}
"
    )
}

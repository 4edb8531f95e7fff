//! From the configuration's Redis to notices between processes.

use std::time::Duration;

use myelin_config::{Config, Redis};
use myelin_replication::{NoticesOptions, RedisAddress};
use myelin_storage::tls::{Authorities, ServerCertificate, TlsOptions};

/// How often each stream is compared with the database: how late another process's last write is seen here if the notice
/// of it was lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How to speak to Redis; `None` if it is not used. Reads the certificates.
///
/// # Errors
/// With the option and what is wrong with it.
pub(crate) fn options(config: &Config) -> Result<Option<NoticesOptions>, String> {
    let redis = &config.redis;
    if !redis.enabled {
        return Ok(None);
    }
    let database = redis.dbid.map(u8::try_from).transpose();
    Ok(Some(NoticesOptions {
        address: address(redis),
        username: redis.username.clone(),
        password: redis.password.as_ref().map(|password| password.expose().to_owned()),
        database: database.map_err(|_| "redis.dbid: must be a number up to 255".to_owned())?,
        tls: tls(config)?,
        server_name: config.server.server_name.to_string(),
        look_every: LOOK_EVERY,
    }))
}

fn address(redis: &Redis) -> RedisAddress {
    if let Some(path) = &redis.path {
        return RedisAddress::Unix(path.clone());
    }
    if redis.sentinels.is_empty() {
        return RedisAddress::Tcp(redis.host.clone(), redis.port);
    }
    RedisAddress::Sentinel {
        sentinels: redis.sentinels.iter().map(|sentinel| (sentinel.host.clone(), sentinel.port)).collect(),
        service: redis.sentinel_master.clone(),
        password: redis.sentinel_password.as_ref().map(|password| password.expose().to_owned()),
    }
}

fn tls(config: &Config) -> Result<Option<rustls::ClientConfig>, String> {
    let redis = &config.redis;
    if !redis.use_tls {
        return Ok(None);
    }
    let authorities = match (&redis.ca_file, &redis.ca_path) {
        (Some(file), _) => Authorities::File(file.clone()),
        (None, Some(folder)) => Authorities::Folder(folder.clone()),
        (None, None) => Authorities::System,
    };
    let options = TlsOptions {
        server_certificate: ServerCertificate::TrustedForHost,
        authorities: Some(authorities),
        client_certificate: redis.certificate_file.clone().zip(redis.private_key_file.clone()),
    };
    options.client_config().map(Some).map_err(|error| format!("redis: {error}"))
}

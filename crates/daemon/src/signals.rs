//! Signals from the operator, and words to the service manager.

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Waits for SIGTERM or SIGINT; calls `reload` at each SIGHUP until then.
///
/// # Errors
/// If the system gives us no signals.
pub async fn until_stopped(mut reload: impl FnMut()) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break info!("stopping, on SIGTERM"),
            _ = interrupt.recv() => break info!("stopping, on SIGINT"),
            _ = hang_up.recv() => {
                info!("reloading, on SIGHUP");
                reload();
            }
        }
    }
    Ok(())
}

/// Tells systemd, if it started us, that the process is ready.
pub fn notify_ready() {
    notify(sd_notify::NotifyState::Ready);
}

/// Tells systemd, if it started us, that the process is about to end.
pub fn notify_stopping() {
    notify(sd_notify::NotifyState::Stopping);
}

fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "systemd could not be told");
    }
}

//! What kinds of daemons there are.

use myelin_config::{Process, WorkerApp};

/// What a daemon was made for. There is one program for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything that no worker was given.
    Main,
    /// Requests, and any duty that the configuration gives it by name.
    GenericWorker,
    /// Push notifications.
    Pusher,
    /// Traffic to application services.
    AppserviceSender,
    /// Traffic to other servers.
    FederationSender,
    /// Media.
    MediaRepo,
    /// Search for users.
    UserDir,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Main,
        Self::GenericWorker,
        Self::Pusher,
        Self::AppserviceSender,
        Self::FederationSender,
        Self::MediaRepo,
        Self::UserDir,
    ];

    /// The role that a `worker_app` asks for.
    pub fn of(app: WorkerApp) -> Self {
        match app {
            WorkerApp::Homeserver => Self::Main,
            WorkerApp::GenericWorker | WorkerApp::FrontendProxy => Self::GenericWorker,
            WorkerApp::Pusher => Self::Pusher,
            WorkerApp::Appservice => Self::AppserviceSender,
            WorkerApp::FederationSender => Self::FederationSender,
            WorkerApp::MediaRepository => Self::MediaRepo,
            WorkerApp::UserDir => Self::UserDir,
        }
    }

    /// The role's name, as it stands in `status` and in the names of programs and units.
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::GenericWorker => "generic-worker",
            Self::Pusher => "pusher",
            Self::AppserviceSender => "appservice-sender",
            Self::FederationSender => "federation-sender",
            Self::MediaRepo => "media-repo",
            Self::UserDir => "user-dir",
        }
    }

    /// The program's name.
    pub fn program(self) -> String {
        format!("myelin-{}", self.name())
    }

    /// Checks that the configuration is for this program.
    ///
    /// # Errors
    /// With a sentence that says which program it is for.
    pub fn check(self, process: &Process) -> Result<(), String> {
        let wanted = Self::of(process.app);
        if wanted == self {
            return Ok(());
        }
        Err(match wanted {
            Self::Main => format!(
                "the configuration has no worker_app, so it is for {}: add the worker's own file with another \
                 --config-path",
                wanted.program()
            ),
            _ => {
                format!("worker_app: {} is for {}, not for {}", process.app, wanted.program(), self.program())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_takes_only_the_configuration_of_its_role() {
        let process = |app| Process { app, name: "x".to_owned() };
        for role in Role::ALL {
            let apps = [
                WorkerApp::Homeserver,
                WorkerApp::GenericWorker,
                WorkerApp::FrontendProxy,
                WorkerApp::Pusher,
                WorkerApp::Appservice,
                WorkerApp::FederationSender,
                WorkerApp::MediaRepository,
                WorkerApp::UserDir,
            ];
            for app in apps {
                let outcome = role.check(&process(app));
                assert_eq!(outcome.is_ok(), Role::of(app) == role, "{role:?} {app:?}");
                assert!(outcome.err().is_none_or(|error| error.contains(&Role::of(app).program())));
            }
        }
    }
}

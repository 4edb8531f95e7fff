//! Exit codes, the same for every daemon.

use std::process::ExitCode;

/// Why a daemon ended. The codes are for service managers: one that restarts on failure should not on
/// [`Exit::Configuration`] (`RestartPreventExitStatus=78`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was told to stop, or had nothing more to do: 0.
    Stopped,
    /// Something failed that is none of the below: 1.
    Failed,
    /// PostgreSQL could not be reached in time, the schema could not be migrated, or a process of the same name is registered and
    /// lives: 69 (`EX_UNAVAILABLE`).
    Database,
    /// A listener could not be opened: 71 (`EX_OSERR`).
    Listener,
    /// Another process took this one's place: 75 (`EX_TEMPFAIL`).
    Replaced,
    /// The configuration is wrong: 78 (`EX_CONFIG`).
    Configuration,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Failed => 1,
            Self::Database => 69,
            Self::Listener => 71,
            Self::Replaced => 75,
            Self::Configuration => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

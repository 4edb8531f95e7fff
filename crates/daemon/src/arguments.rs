//! The command line that all daemons share.

use std::path::PathBuf;

use clap::Parser;

/// A process of a Myelin homeserver.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Arguments {
    /// A configuration file, or a folder of *.yaml files. Repeatable: later ones replace whole top-level keys.
    #[arg(short, long, required = true, value_name = "PATH")]
    pub config_path: Vec<PathBuf>,
    /// Checks the configuration, says what is wrong with it, and ends.
    #[arg(long)]
    pub check_config: bool,
}

impl Arguments {
    /// Reads the command line; ends the process on `--help`, `--version` and what it doesn't understand.
    pub fn from_command_line() -> Self {
        Self::parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_paths_are_kept_in_their_order() {
        let arguments =
            Arguments::parse_from(["myelin-main", "-c", "a.yaml", "--config-path", "b", "--check-config"]);
        assert_eq!(arguments.config_path, [PathBuf::from("a.yaml"), PathBuf::from("b")]);
        assert!(arguments.check_config);
        assert!(Arguments::try_parse_from(["myelin-main"]).is_err(), "a configuration must be named");
    }
}

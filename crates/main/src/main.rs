//! `myelin-main`: the main process, which serves everything that no worker was given.
fn main() {}

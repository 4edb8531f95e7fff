//! `myelin-ctl`: the control program.
fn main() {}

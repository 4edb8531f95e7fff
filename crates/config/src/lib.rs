//! Synapse's configuration files, read into typed sections.
//!
//! [`load`] merges the files and the environment, translates old spellings, and gives a [`Config`] whose values are all
//! checked, or every fault of every file at once, each with its file, line, key and remedy. It knows nothing of what the
//! options do: that is for the crates that receive a section.
//!
//! Start reading at [`load`]; a section is one struct in one file below `sections/`, declared by the macro in
//! `section.rs`. The reference in `configs/` is generated from the same declarations by [`reference()`].

mod address;
mod checks;
mod config;
mod document;
mod fault;
mod load;
mod reference;
mod section;
mod sections;
mod translate;
mod unserved;
mod value;

pub use self::{
    address::Address,
    config::Config,
    fault::{Fault, Faults, Warning},
    load::{load, load_with},
    reference::reference,
    sections::*,
    value::{ByteSize, Glob, OneOrMany, RateLimit, Secret},
};

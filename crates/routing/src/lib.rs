//! The table of all operations and which process serves each.

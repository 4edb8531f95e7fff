//! Prints what the cases of the fault suite cost as a table, and puts it into a document: `myelin-chaos-report ROWS [DOCUMENT]`.
//! `make chaos` runs it.

use std::{env, fs};

use anyhow::Context as _;
use myelin_integration_tests::report::{in_document, rows, table};

fn main() -> anyhow::Result<()> {
    let mut arguments = env::args_os().skip(1);
    let path = arguments.next().context("usage: myelin-chaos-report ROWS [DOCUMENT]")?;
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let rows = rows(&text).with_context(|| format!("{} holds more than rows", path.display()))?;
    if let Some(document) = arguments.next() {
        let text =
            fs::read_to_string(&document).with_context(|| format!("reading {}", document.display()))?;
        let text = in_document(&text, &rows)
            .with_context(|| format!("{} has no place for the table", document.display()))?;
        fs::write(&document, text).with_context(|| format!("writing {}", document.display()))?;
    }
    #[expect(clippy::print_stdout, reason = "the output of this program")]
    {
        print!("{}", table(&rows));
    }

    Ok(())
}

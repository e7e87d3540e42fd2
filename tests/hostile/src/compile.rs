//! The compiler's process of the tests, in place of the hidden subcommand of `partita`.

use std::process::ExitCode;

fn main() -> ExitCode {
    partita_policy::compile_main()
}

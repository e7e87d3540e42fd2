//! The programs themselves: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    partita_fake_mps::program::main()
}

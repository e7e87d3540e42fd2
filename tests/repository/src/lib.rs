//! What the repository promises of itself, held by the tests beside this file: which crate may depend on which, how long a source file
//! may be, and that ARCHITECTURE.md stays short.

//! What the repository promises of itself, held by the tests beside this file: which crate may depend on which, how long a source file
//! may be, that ARCHITECTURE.md stays short, and that the documents leave nothing to fill in and name only paths that exist.

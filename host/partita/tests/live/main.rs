//! `partita scheduler` on a real API server: what it binds, what it says, and that nothing is lost or doubled when something dies.
//!
//! Everything here runs real programs on loopback: etcd, kube-apiserver, where a test needs them kube-controller-manager and KWOK, and the
//! debug build of this program. No test measures time; each waits for a state, and gives up after a while that is long for any machine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]
#![allow(clippy::print_stderr, reason = "the log of a scheduler belongs beside the failure")]

mod bad_input;
mod faults;
mod handshake;
mod leaders;
mod rights;
mod semantics;
mod stage;
mod words;

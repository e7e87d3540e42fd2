//! `partita agent` on a real API server, with a kubelet on Unix sockets and NVML through the real wrapper and a library of ours.
//!
//! No test measures time; each waits for a state, and gives up after a while that is long for any machine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]
#![allow(clippy::print_stderr, reason = "the log of an agent belongs beside the failure")]

mod bad_gpus;
mod crashes;
mod handshake;
mod leaving;
mod programs;
mod sharing;
mod stage;
mod surroundings;

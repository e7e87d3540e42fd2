//! The side of the component: bindings of the interfaces, and the glue from their owned lists to the borrowed columns of the traits.
//!
//! A question arrives as a `Vec` that the host wrote straight into this instance's memory; the glue lends its columns to the policy as
//! slices, so none is copied here. The bindings are made interface by interface, since both worlds share one of them; `wit-component` puts the
//! interfaces that a policy exports together again.

#![allow(missing_docs, reason = "the bindings are generated from wit/policy.wit, which documents them")]

mod lend;
mod place;

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Once;

use lifecycle::partita::policy::{host, types};

use crate::log::Level;
use crate::native::{Info, ready};
use crate::policy::{Issue, Policy, Refusal, configured};

/// Bindings of the interface `lifecycle`.
#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code: the canonical ABI is raw pointers")]
pub mod lifecycle {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package partita:sdk; world lifecycle { import partita:policy/host@0.1.0; export partita:policy/lifecycle@0.1.0; }",
        pub_export_macro: true,
        generate_all,
    });
}

/// Bindings of the interface `partitioning`.
#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code: the canonical ABI is raw pointers")]
pub mod partitioning {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package partita:sdk; world partitioning { export partita:policy/partitioning@0.1.0; }",
        pub_export_macro: true,
        with: { "partita:policy/types@0.1.0": crate::guest::lifecycle::partita::policy::types },
    });
}

/// Bindings of the interface `borrowing`.
#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code: the canonical ABI is raw pointers")]
pub mod borrowing {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package partita:sdk; world borrowing { export partita:policy/borrowing@0.1.0; }",
        pub_export_macro: true,
        with: { "partita:policy/types@0.1.0": crate::guest::lifecycle::partita::policy::types },
    });
}

/// Where an instance keeps its configured policy. Implemented by the export macros, since a static cannot be generic.
pub trait Instance: Policy {
    /// Runs `run` with the cell of this instance.
    fn with<R>(run: impl FnOnce(&RefCell<Option<Self>>) -> R) -> R;
}

/// The exported functions of policy `P`.
#[derive(Debug)]
pub struct Exported<P>(PhantomData<P>);

/// Runs a question on the policy of this instance.
fn ask<P: Instance, R>(question: impl FnOnce(&P) -> Result<R, Refusal>) -> Result<R, types::Refusal> {
    P::with(|cell| {
        let mut slot = cell.borrow_mut();
        if slot.is_none() {
            forward_panics();
        }
        question(ready(&mut slot)?)
    })
    .map_err(refusal)
}

fn refusal(refusal: Refusal) -> types::Refusal {
    match refusal {
        Refusal::Declined(reason) => types::Refusal::Declined(reason),
        Refusal::Unsupported(reason) => types::Refusal::Unsupported(reason),
    }
}

impl<P: Instance> lifecycle::exports::partita::policy::lifecycle::Guest for Exported<P> {
    fn describe() -> types::Info {
        forward_panics();
        let info = Info::of::<P>();
        types::Info {
            name: info.name.to_owned(),
            version: info.version.to_owned(),
            settings_schema: info.settings_schema.to_owned(),
            reads: info.reads.iter().map(|&column| column.to_owned()).collect(),
        }
    }

    fn validate_settings(settings: String) -> Result<(), Vec<types::Issue>> {
        made::<P>(&settings).map(drop)
    }

    fn configure(settings: String) -> Result<(), Vec<types::Issue>> {
        let policy = made::<P>(&settings)?;
        P::with(|cell| cell.replace(Some(policy)));
        Ok(())
    }
}

fn made<P: Policy>(settings: &str) -> Result<P, Vec<types::Issue>> {
    forward_panics();
    configured(settings).map_err(|issues| issues.into_iter().map(|Issue { path, message }| types::Issue { path, message }).collect())
}

/// Sends a panic's message to the host's log before the trap: the trap itself carries none.
fn forward_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string()))));
}

pub(crate) fn log(level: Level, message: &str) {
    let level = match level {
        Level::Debug => host::Level::Debug,
        Level::Info => host::Level::Info,
        Level::Warn => host::Level::Warn,
        Level::Error => host::Level::Error,
    };
    host::log(level, message);
}

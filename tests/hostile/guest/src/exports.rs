//! The exports of the world `partitioner`.

use std::cell::RefCell;

use crate::attack::{Attack, describe_block, forever};

/// Bindings of the world.
#[allow(
    unsafe_code,
    unreachable_pub,
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "generated code: the canonical ABI is raw pointers"
)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "partitioner" });
    use super::Hostile;
    export!(Hostile);
}

use bindings::exports::partita::policy::lifecycle;
use bindings::exports::partita::policy::partitioning::{self, Budget, Moves, Plan};
use bindings::partita::policy::host;
use bindings::partita::policy::types::{Info, Issue, Refusal};

/// Columns of a block, by their place in `types.column`.
const SEED: usize = 0;
const CANDIDATES: usize = 34;

struct Hostile;

thread_local!(static ATTACK: RefCell<Option<Attack>> = const { RefCell::new(None) });

impl lifecycle::Guest for Hostile {
    fn describe() -> Info {
        let block = describe_block();
        let mut lines = block.split('\n').map(str::to_owned);
        let mut next = || lines.next().unwrap_or_default();
        let (name, version, settings_schema, reads) = (next(), next(), next(), next());
        if name == "trap" {
            core::arch::wasm32::unreachable();
        }
        Info { name, version, settings_schema, reads: reads.split(',').filter(|column| !column.is_empty()).map(str::to_owned).collect() }
    }

    fn validate_settings(settings: String) -> Result<(), Vec<Issue>> {
        std::panic::set_hook(Box::new(|panic| host::log(host::Level::Error, &panic.to_string())));
        let attack = Attack::new(&settings);
        match attack.what.as_str() {
            "validate-trap" => panic!("validate"),
            "validate-refuse" => Err((0..1000).map(|_| Issue { path: "/do".into(), message: "no\x1b[2J".into() }).collect()),
            _ => Ok(()),
        }
    }

    fn configure(settings: String) -> Result<(), Vec<Issue>> {
        let attack = Attack::new(&settings);
        match attack.what.as_str() {
            "configure-loop" => forever(),
            "configure-refuse" => return Err(vec![Issue { path: String::new(), message: "changed my mind".into() }]),
            _ => {}
        }
        ATTACK.with(|cell| cell.replace(Some(attack)));
        Ok(())
    }
}

impl partitioning::Guest for Hostile {
    fn expect(_outlook: Vec<u32>) {}

    fn score(block: Vec<u32>, _demand: u32) -> Result<Vec<i32>, Refusal> {
        let column = |row: usize| &block[block[1 + row] as usize..block[2 + row] as usize];
        ATTACK.with(|cell| match cell.borrow_mut().as_mut() {
            Some(attack) => attack.score(column(SEED)[0], column(CANDIDATES).len()),
            None => Err(Refusal::Declined("not configured".into())),
        })
    }

    fn propose_layouts(_block: Vec<u32>, _budget: Budget) -> Result<Plan, Refusal> {
        Err(Refusal::Declined("never".into()))
    }

    fn choose_moves(_block: Vec<u32>, _budget: Budget) -> Result<Moves, Refusal> {
        Err(Refusal::Declined("never".into()))
    }
}

/// One line to the log.
pub(crate) fn log(message: &str) {
    host::log(host::Level::Info, message);
}

/// A refusal.
pub(crate) fn declined(reason: String) -> Refusal {
    Refusal::Declined(reason)
}

/// The other refusal.
pub(crate) fn unsupported(reason: &str) -> Refusal {
    Refusal::Unsupported(reason.to_owned())
}

pub(crate) use bindings::partita::policy::types::Refusal as Answered;

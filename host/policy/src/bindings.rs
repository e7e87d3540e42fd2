//! The world `partitioner`, generated from `wit/policy.wit`. Its parameters borrow, so a question is lowered without a copy of its own.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "partitioner",
    ownership: Borrowing { duplicate_if_necessary: true },
});

pub(crate) use partita::policy::host::Level;
pub(crate) use partita::policy::types::{Info, Issue, Refusal};

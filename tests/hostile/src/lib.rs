//! A policy that attacks its host, as a component, and what its tests share.
//!
//! The tests in `tests/` are the host's red team: each attack that the design names is carried out against the real runtime with the real
//! compiler process, and must end as the design says. The guest is `guest/`; its settings choose the attack.

pub mod bomb;

/// The component of the guest.
pub const COMPONENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hostile.wasm"));

/// The mark before the block that the guest's `describe` reads, and the bytes of the whole block.
const MARK: &[u8] = b"PARTITA-DESCRIBE\n";
const BLOCK: usize = 512;

/// What the guest says of itself.
#[derive(Clone, Debug)]
pub struct Describe<'a> {
    /// Name; `trap` makes it trap instead.
    pub name: &'a str,
    /// Version.
    pub version: &'a str,
    /// Settings schema, one line.
    pub schema: &'a str,
    /// Columns, joined by commas.
    pub reads: &'a str,
}

impl Default for Describe<'_> {
    fn default() -> Self {
        Self { name: "hostile", version: "1.0.0", schema: "", reads: "context.seed,demands.*" }
    }
}

impl Describe<'_> {
    /// The guest with this description.
    ///
    /// # Panics
    /// When the description is longer than the block, or holds a line break.
    #[must_use]
    pub fn component(&self) -> Vec<u8> {
        let Self { name, version, schema, reads } = self;
        let text = format!("{name}\n{version}\n{schema}\n{reads}\0");
        assert!(text.matches('\n').count() == 3 && MARK.len() + text.len() <= BLOCK, "does not fit the block: {self:?}");
        let mut component = COMPONENT.to_vec();
        let start = component.windows(MARK.len()).position(|window| window == MARK);
        let start = start.unwrap_or_else(|| panic!("the guest has no block marked {:?}", String::from_utf8_lossy(MARK))) + MARK.len();
        component[start..start + text.len()].copy_from_slice(text.as_bytes());
        component
    }
}

/// Settings that choose `attack`.
#[must_use]
pub fn settings(attack: &str) -> String {
    format!(r#"{{"do": "{attack}"}}"#)
}

/// Settings that make the guest answer `scores`, whatever it is asked.
#[must_use]
pub fn answering(scores: &[i32]) -> String {
    format!(r#"{{"do": "answer", "scores": {scores:?}}}"#)
}

//! The attacks.

use std::hint::black_box;

use crate::exports::{Answered, declined, log, unsupported};

/// A score that every honest call gives.
const HONEST: i32 = 7;
/// Bytes far above any reply limit, and below the memory limit.
const HUGE: usize = 4 << 20;

/// What `describe` answers, one line each: name, version, schema, columns. A test writes over it in the component.
static DESCRIBE: [u8; 512] = block("PARTITA-DESCRIBE\nhostile\n1.0.0\n\ncontext.seed,demands.*");

const fn block(text: &str) -> [u8; 512] {
    let (mut block, mut index) = ([0; 512], 0);
    while index < text.len() {
        block[index] = text.as_bytes()[index];
        index += 1;
    }
    block
}

/// The lines of [`DESCRIBE`] after its mark.
#[expect(unsafe_code, reason = "a volatile read keeps the compiler from looking into the block, which changes after it ran")]
pub(crate) fn describe_block() -> String {
    // SAFETY: a pointer to a static is always valid to read from.
    let block = unsafe { std::ptr::read_volatile(&raw const DESCRIBE) };
    let text = block.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).split_once('\n').map(|(_, lines)| lines.to_owned()).unwrap_or_default()
}

/// What the policy does.
pub(crate) struct Attack {
    pub(crate) what: String,
    scores: Vec<i32>,
    calls: i32,
}

impl Attack {
    /// Reads `{"do": "word", "scores": [1, 2]}` without a parser of JSON: the tests write it in this form.
    pub(crate) fn new(settings: &str) -> Self {
        let settings = settings.replace(' ', "");
        let what = settings.split_once("\"do\":\"").and_then(|(_, rest)| rest.split_once('"')).map_or("", |(word, _)| word);
        let list = settings.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
        let scores = list.split(',').filter_map(|score| score.trim().parse().ok()).collect();
        Self { what: what.to_owned(), scores, calls: 0 }
    }

    /// One question with `count` candidates.
    pub(crate) fn score(&mut self, seed: u32, count: usize) -> Result<Vec<i32>, Answered> {
        self.calls += 1;
        let honest = vec![HONEST; count];
        match self.what.as_str() {
            "answer" => return Ok(self.scores.clone()),
            "decline" => return Err(declined("no opinion\x1b[2J".into())),
            "decline-huge" => return Err(declined("x".repeat(HUGE))),
            "unsupported" => return Err(unsupported("too odd")),
            "short" => return Ok(vec![HONEST; count.saturating_sub(1)]),
            "long" => return Ok(vec![HONEST; count + 1]),
            "out-of-range" => return Ok(vec![1_000_001; count]),
            "minimum" => return Ok(vec![i32::MIN; count]),
            "huge-reply" => return Ok(vec![0; HUGE / 4]),
            "impure" => return Ok(vec![self.calls; count]),
            "impure-late" => return Ok(vec![i32::from(self.calls > 30); count]),
            "impure-decline" if self.calls > 1 => return Err(declined("tired".into())),
            "trap-on-seed-13" if seed == 13 => panic!("thirteen"),
            "trap-on-seed-13" => {}
            _ => self.misbehave(),
        }
        Ok(honest)
    }

    /// What harms before there is an answer.
    fn misbehave(&self) {
        match self.what.as_str() {
            "loop" => forever(),
            "recurse" => {
                black_box(deeper(1));
            }
            "grow" => grow(),
            "fill" => fill(),
            "trap" => core::arch::wasm32::unreachable(),
            "panic" => upset(),
            "index" => {
                black_box([1, 2, 3][black_box(7)]);
            }
            "log-flood" => (0..u32::MAX).for_each(|line| log(&format!("line {line}"))),
            "log-some" => (0..100).for_each(|line| log(&format!("line {line}"))),
            "log-huge" => log(&"x".repeat(HUGE)),
            "control-chars" => {
                log("\x1b[2J\r\n\u{202e}all is well");
                core::arch::wasm32::unreachable();
            }
            _ => {}
        }
    }
}

/// Counts.
#[inline(never)]
pub(crate) fn forever() {
    let mut turns = 0u64;
    while black_box(turns) < u64::MAX {
        turns += 1;
    }
}

/// Says something on the way down.
#[inline(never)]
fn upset() {
    panic!("the policy is upset");
}

/// Recursion that no optimiser turns into a loop.
#[inline(never)]
#[expect(unconditional_recursion, reason = "it is the attack")]
fn deeper(depth: u64) -> u64 {
    black_box(deeper(black_box(depth) + 1)) + 1
}

/// Takes memory until there is none.
fn grow() {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1u8; 1 << 20]));
    }
}

/// Work that is one instruction a megabyte.
fn fill() {
    let mut block = vec![0u8; HUGE];
    for turn in 0..=u32::MAX {
        black_box(&mut block).fill(turn as u8);
    }
}

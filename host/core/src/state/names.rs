//! Words by number: keys and values of node labels, taints, names of resources, addresses. What is asked of every node compares numbers.

use std::collections::BTreeMap;

/// The empty word. As a key of labels it stands for the node's own name, as an address for every address: neither is ever written so.
pub(super) const EMPTY: u32 = 0;

/// Words by number. Only grows: a number, once given, keeps its meaning.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    ids: BTreeMap<String, u32>,
    words: Vec<Word>,
}

#[derive(Clone, Debug)]
struct Word {
    text: String,
    /// The number that it writes, if it writes one.
    number: Option<i64>,
}

impl Default for Names {
    fn default() -> Self {
        let word = Word { text: String::new(), number: None };
        Self { ids: BTreeMap::from([(String::new(), EMPTY)]), words: vec![word] }
    }
}

impl Names {
    /// The number of `word`, given now if it is new.
    pub(super) fn id(&mut self, word: &str) -> u32 {
        if let Some(&id) = self.ids.get(word) {
            return id;
        }
        let id = self.words.len() as u32;
        self.words.push(Word { text: word.to_owned(), number: word.parse().ok() });
        self.ids.insert(word.to_owned(), id);
        id
    }

    /// The whole number that a word writes, with or without a sign; none if it writes none below 2^63.
    pub(super) fn number(&self, id: u32) -> Option<i64> {
        self.words[id as usize].number
    }

    /// The word numbered `id`.
    pub(crate) fn word(&self, id: u32) -> &str {
        &self.words[id as usize].text
    }
}

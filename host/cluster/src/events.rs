//! Events: what people see under `kubectl describe`.
//!
//! kube's own recorder remembers every event and looks at all of them for each new one, which a scheduler's thousands of pods turn into
//! most of its work. Here only what was said last about each object is remembered, up to a limit, so that the same is not said twice.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::runtime::events::EventType;

/// Who says it.
const CONTROLLER: &str = "partita.dev/scheduler";
/// Of how many objects it is remembered what was said last. Beyond, the one about which nothing was said for longest is forgotten, and
/// may be told the same again.
pub(crate) const EVENTS_MAX: usize = 16_384;
/// The longest note of an event that the API server takes.
const NOTE_MAX: usize = 1024;
/// After how long the same is said again, so that it is there when somebody looks: events live for an hour.
const AGAIN: SignedDuration = SignedDuration::from_mins(30);

/// What was said last about objects.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By uid and reason: the note, when it was said, and the number of its turn.
    said: HashMap<(String, String), (String, Timestamp, u64)>,
    /// In the order in which things were said; turns that were overtaken stay until they come up.
    order: VecDeque<((String, String), u64)>,
    turn: u64,
}

impl Notes {
    /// Whether this is news, and remembers it.
    pub(crate) fn is_news(&self, uid: &str, reason: &str, note: &str, now: Timestamp) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (uid.to_owned(), reason.to_owned());
        if let Some((before, when, _)) = kept.said.get(&key)
            && before == note
            && now.duration_since(*when) < AGAIN
        {
            return false;
        }
        kept.turn += 1;
        let turn = kept.turn;
        kept.said.insert(key.clone(), (note.to_owned(), now, turn));
        kept.order.push_back((key, turn));
        while kept.order.len() > EVENTS_MAX {
            let Some((key, turn)) = kept.order.pop_front() else { break };
            if kept.said.get(&key).is_some_and(|said| said.2 == turn) {
                kept.said.remove(&key);
            }
        }
        true
    }
}

/// Something to say about an object.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    /// About what.
    pub about: ObjectReference,
    /// Whether something is not as it should be.
    pub kind: EventType,
    /// Why it is said: a word in camel case.
    pub reason: &'static str,
    /// What was done: a word in camel case.
    pub action: &'static str,
    /// The whole story.
    pub text: String,
}

impl Note {
    /// The event that says it, in the name of `instance`.
    pub(crate) fn event(self, instance: &str, now: Timestamp) -> Event {
        // Names of events are at most 253 bytes, five of which the API server adds.
        let prefix: String = self.about.name.as_deref().unwrap_or("partita").chars().take(240).collect();
        let prefix = prefix.trim_end_matches(['.', '-']);
        let namespace = self.about.namespace.clone().unwrap_or_else(|| "default".into());
        Event {
            metadata: ObjectMeta { generate_name: Some(format!("{prefix}-")), namespace: Some(namespace), ..ObjectMeta::default() },
            action: Some(self.action.into()),
            reason: Some(self.reason.into()),
            note: Some(cut(&self.text, NOTE_MAX)),
            type_: Some(if self.kind == EventType::Normal { "Normal" } else { "Warning" }.into()),
            event_time: Some(MicroTime(now)),
            regarding: Some(self.about),
            reporting_controller: Some(CONTROLLER.into()),
            reporting_instance: Some(instance.into()),
            ..Event::default()
        }
    }
}

/// The beginning of a text, as much as `most` bytes hold.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most - '…'.len_utf8()).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_not_said_twice_until_it_may_be_forgotten() {
        let notes = Notes::default();
        let at = |minutes: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        assert!(notes.is_news("a", "Failed", "full", at(0)));
        assert!(!notes.is_news("a", "Failed", "full", at(29)));
        assert!(
            notes.is_news("a", "Failed", "fuller", at(29))
                && notes.is_news("a", "Other", "full", at(29))
                && notes.is_news("b", "Failed", "full", at(29))
        );
        assert!(!notes.is_news("a", "Failed", "fuller", at(58)));
        assert!(notes.is_news("a", "Failed", "fuller", at(59)));
        for row in 0..EVENTS_MAX {
            assert!(notes.is_news(&format!("x{row}"), "Failed", "full", at(59)));
        }
        let kept = notes.kept.lock().unwrap();
        assert_eq!((kept.said.len(), kept.order.len()), (EVENTS_MAX, EVENTS_MAX));
        assert!(!kept.said.contains_key(&("a".to_owned(), "Failed".to_owned())));
    }

    #[test]
    fn one_object_that_changes_often_does_not_fill_the_memory() {
        let notes = Notes::default();
        for row in 0..3 * EVENTS_MAX {
            assert!(notes.is_news("a", "Failed", &row.to_string(), Timestamp::UNIX_EPOCH));
        }
        let kept = notes.kept.lock().unwrap();
        assert_eq!((kept.said.len(), kept.order.len()), (1, EVENTS_MAX));
    }

    #[test]
    fn long_notes_are_cut_between_letters() {
        assert_eq!(cut("short", NOTE_MAX), "short");
        let long = cut(&"ä".repeat(NOTE_MAX), NOTE_MAX);
        assert!(long.len() <= NOTE_MAX && long.len() > NOTE_MAX - 3 && long.ends_with("ä…"), "{}", long.len());
    }
}

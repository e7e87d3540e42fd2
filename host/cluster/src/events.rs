//! Events: what people see under `kubectl describe`.
//!
//! kube's own recorder remembers every event and looks at all of them for each new one, which a scheduler's thousands of pods turn into
//! most of its work. Here only what was said last about each object is remembered, up to a limit, so that the same is not said twice. What
//! changes often is counted in the series of one event, as client-go's recorder does, whose note stays what it was: the API server lets no
//! note be changed. What is so now stands in the pod's condition.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
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
/// After how long something else is said by an event of its own.
const ANEW: SignedDuration = SignedDuration::from_mins(10);

/// What was said last about objects.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By uid and reason.
    said: HashMap<(String, String), Said>,
    /// In the order in which things were said; turns that were overtaken stay until they come up.
    order: VecDeque<((String, String), u64)>,
    turn: u64,
}

/// What was said.
#[derive(Debug)]
struct Said {
    text: String,
    /// When its event was left.
    at: Timestamp,
    /// Its event, once it was left.
    event: Option<String>,
    /// How often the event was said.
    count: i32,
    /// The number of its turn.
    turn: u64,
}

/// How to say something.
#[derive(Debug, PartialEq)]
pub(crate) enum Say {
    /// It was said not long ago.
    Nothing,
    /// By an event of its own.
    New,
    /// By counting in this event, which was said so often then.
    Again { event: String, count: i32 },
}

impl Notes {
    /// How to say this, and remembers it.
    pub(crate) fn say(&self, uid: &str, reason: &str, note: &str, now: Timestamp) -> Say {
        let mut kept = self.lock();
        let key = (uid.to_owned(), reason.to_owned());
        if let Some(said) = kept.said.get_mut(&key) {
            let since = now.duration_since(said.at);
            if said.text == note && since < AGAIN {
                return Say::Nothing;
            }
            if let Some(event) = said.event.clone().filter(|_| since < ANEW) {
                (said.text, said.count) = (note.to_owned(), said.count.saturating_add(1));
                return Say::Again { event, count: said.count };
            }
        }
        kept.turn += 1;
        let turn = kept.turn;
        kept.said.insert(key.clone(), Said { text: note.to_owned(), at: now, event: None, count: 1, turn });
        kept.order.push_back((key, turn));
        while kept.order.len() > EVENTS_MAX {
            let Some((key, turn)) = kept.order.pop_front() else { break };
            if kept.said.get(&key).is_some_and(|said| said.turn == turn) {
                kept.said.remove(&key);
            }
        }
        Say::New
    }

    /// It was said by this event.
    pub(crate) fn left(&self, uid: &str, reason: &str, event: String) {
        if let Some(said) = self.lock().said.get_mut(&(uid.to_owned(), reason.to_owned())) {
            said.event = Some(event);
        }
    }

    /// It could not be said.
    pub(crate) fn forget(&self, uid: &str, reason: &str) {
        self.lock().said.remove(&(uid.to_owned(), reason.to_owned()));
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    #[test]
    fn the_same_is_not_said_twice_until_it_may_be_forgotten() {
        let notes = Notes::default();
        assert_eq!(notes.say("a", "Failed", "full", at(0)), Say::New);
        assert_eq!(notes.say("a", "Failed", "full", at(29)), Say::Nothing);
        for (uid, reason, note) in [("a", "Failed", "fuller"), ("a", "Other", "full"), ("b", "Failed", "full")] {
            assert_eq!(notes.say(uid, reason, note, at(29)), Say::New);
        }
        assert_eq!(notes.say("a", "Failed", "fuller", at(58)), Say::Nothing);
        assert_eq!(notes.say("a", "Failed", "fuller", at(59)), Say::New);
        for row in 0..EVENTS_MAX {
            assert_eq!(notes.say(&format!("x{row}"), "Failed", "full", at(59)), Say::New);
        }
        let kept = notes.lock();
        assert_eq!((kept.said.len(), kept.order.len()), (EVENTS_MAX, EVENTS_MAX));
        assert!(!kept.said.contains_key(&("a".to_owned(), "Failed".to_owned())));
    }

    #[test]
    fn what_changes_often_is_counted_in_one_event() {
        let notes = Notes::default();
        assert_eq!(notes.say("a", "Failed", "1 of 3", at(0)), Say::New);
        notes.left("a", "Failed", "a-x".into());
        for minute in 1..10 {
            let again = Say::Again { event: "a-x".into(), count: minute + 1 };
            assert_eq!(notes.say("a", "Failed", &format!("{minute} of 4"), at(minute.into())), again);
        }
        assert_eq!(notes.say("a", "Failed", "9 of 4", at(9)), Say::Nothing);
        assert_eq!(notes.say("a", "Failed", "none", at(10)), Say::New, "now and then it is read anew");
        notes.left("a", "Failed", "a-y".into());
        notes.forget("a", "Failed");
        assert_eq!(notes.say("a", "Failed", "none", at(10)), Say::New, "the event was gone");
    }

    #[test]
    fn one_object_that_changes_often_does_not_fill_the_memory() {
        let notes = Notes::default();
        for row in 0..3 * EVENTS_MAX {
            assert_eq!(notes.say("a", "Failed", &row.to_string(), at(0)), Say::New);
        }
        let kept = notes.lock();
        assert_eq!((kept.said.len(), kept.order.len()), (1, EVENTS_MAX));
    }

    #[test]
    fn long_notes_are_cut_between_letters() {
        assert_eq!(cut("short", NOTE_MAX), "short");
        let long = cut(&"ä".repeat(NOTE_MAX), NOTE_MAX);
        assert!(long.len() <= NOTE_MAX && long.len() > NOTE_MAX - 3 && long.ends_with("ä…"), "{}", long.len());
    }
}

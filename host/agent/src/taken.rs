//! Which layout counts.

use kube::ResourceExt;
use partita_kube::crd::{GpuNode, GpuNodeSpec};

use crate::{object::Object, wish::follows};

/// The layout that was taken last, and from which object: another object's numbers begin anew.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    uid: Option<String>,
    /// Term and generation that an earlier run of this program took from that object.
    earlier: (i64, i64),
    /// What counts; none if there is none, or only one that was refused.
    pub(crate) layout: Option<GpuNodeSpec>,
    /// Why the one that stands there was not taken.
    pub(crate) refused: Option<String>,
}

impl Taken {
    /// Goes on where an earlier run of this program ended, by what it told.
    pub(crate) fn again(object: &GpuNode) -> Self {
        let told = object.status.as_ref().map(|status| (status.observed_term, status.observed_generation));
        Self { uid: object.uid(), earlier: told.unwrap_or_default(), ..Self::default() }
    }

    /// Takes the layout that stands there, unless it is older than the one taken last.
    pub(crate) fn take(&mut self, object: &Object) {
        let object = match object {
            Object::Unknown => return,
            // Whoever deleted it wants no layout.
            Object::None => return *self = Self::default(),
            Object::Some(object) => object,
        };
        if self.uid != object.uid() {
            *self = Self { uid: object.uid(), ..Self::default() };
        }
        let last = self.numbers();
        if follows(&object.spec, last) {
            self.refused = None;
            self.layout = Some(object.spec.clone());
        } else {
            self.refused = Some(format!(
                "the layout of term {}, generation {} is refused: {}, {} was taken before. A scheduler that no longer leads wrote it, or somebody \
                 by hand. The leader's next layout replaces it; if there is none, delete the GpuNode, which is then made anew",
                object.spec.term, object.spec.generation, last.0, last.1,
            ));
        }
    }

    /// Term and generation of the layout that was taken last.
    pub(crate) fn numbers(&self) -> (i64, i64) {
        self.layout.as_ref().map_or(self.earlier, |last| (last.term, last.generation))
    }
}

#[cfg(test)]
mod tests {
    use partita_kube::crd::GpuNodeStatus;

    use super::*;

    fn object(uid: &str, (term, generation): (i64, i64), told: Option<(i64, i64)>) -> GpuNode {
        let mut object = GpuNode::new("n", GpuNodeSpec { term, generation, ..GpuNodeSpec::default() });
        object.metadata.uid = Some(uid.to_owned());
        object.status =
            told.map(|(observed_term, observed_generation)| GpuNodeStatus { observed_term, observed_generation, ..Default::default() });
        object
    }

    fn some(object: &GpuNode) -> Object {
        Object::Some(Box::new(object.clone()))
    }

    #[test]
    fn an_older_layout_is_refused_also_after_a_restart() {
        let first = object("a", (2, 7), None);
        let mut taken = Taken::again(&first);
        taken.take(&some(&first));
        assert_eq!((taken.numbers(), &taken.refused), ((2, 7), &None));
        taken.take(&some(&object("a", (2, 6), None)));
        assert!(taken.refused.as_ref().is_some_and(|why| why.contains("term 2, generation 6") && why.contains("2, 7")));
        assert_eq!(taken.layout.as_ref().map(|layout| layout.generation), Some(7));
        let late = object("a", (1, 99), Some((2, 7)));
        let mut again = Taken::again(&late);
        again.take(&some(&late));
        assert!(again.refused.is_some() && again.layout.is_none());
        assert_eq!(again.numbers(), (2, 7));
        again.take(&some(&object("a", (3, 0), Some((2, 7)))));
        assert_eq!((again.numbers(), again.refused), ((3, 0), None));
    }

    #[test]
    fn another_object_begins_anew_whatever_stands_in_it() {
        let mut taken = Taken::default();
        taken.take(&some(&object("a", (5, 9), None)));
        // The deletion was not seen, and the old status was written into the new object meanwhile.
        taken.take(&some(&object("b", (0, 0), Some((5, 9)))));
        assert_eq!((taken.numbers(), &taken.refused), ((0, 0), &None));
        taken.take(&some(&object("b", (5, 1), None)));
        taken.take(&Object::None);
        assert_eq!((taken.numbers(), taken.layout.is_some()), ((0, 0), false));
        taken.take(&Object::Unknown);
        assert!(taken.refused.is_none());
    }
}

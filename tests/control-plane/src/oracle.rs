//! kube-scheduler's own filters as an oracle of where a pod may go.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use k8s_openapi::api::{
    core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::StorageClass,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Doing, Error},
    process, programs,
};

/// A cluster and a pod that asks for a place in it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Case {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The namespaces, for selectors of namespaces; those that nothing selects may be left out.
    pub namespaces: Vec<Namespace>,
    /// The pods that are bound.
    pub pods: Vec<Pod>,
    /// Claims on volumes.
    pub pvcs: Vec<PersistentVolumeClaim>,
    /// Volumes.
    pub pvs: Vec<PersistentVolume>,
    /// Classes of storage.
    #[serde(rename = "storageclasses")]
    pub storage_classes: Vec<StorageClass>,
    /// The pod that is asked about.
    pub pod: Pod,
}

/// Where a pod may go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// The names of the nodes that every filter lets through, sorted.
    pub feasible: Vec<String>,
    /// Of every other node what its filters say, in the words of kube-scheduler.
    pub reasons: BTreeMap<String, Vec<String>>,
}

/// The filters of kube-scheduler's default profile in a process that runs until this is dropped. One question at a time.
#[derive(Debug)]
pub struct Oracle {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What the program writes: an answer or why there is none.
#[derive(Deserialize)]
#[serde(untagged)]
enum Reply {
    Answer(Answer),
    Refused { error: String },
}

impl Oracle {
    /// Builds the program if it is not built yet, and starts it.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn start() -> Result<Self, Error> {
        let programs = programs::build()?;
        let mut command = process::dying_with_us(&programs.feasible);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process::spawn(command).doing(|| format!("could not run {}", programs.feasible.display()))?;
        let (Some(questions), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Oracle("it was started without pipes".to_owned()));
        };
        Ok(Self { child, questions, answers: BufReader::new(answers) })
    }

    /// Where the pod of `case` may go.
    ///
    /// # Errors
    /// When the program does not understand the case, or ended.
    pub fn ask(&mut self, case: &Case) -> Result<Answer, Error> {
        let mut question = serde_json::to_vec(case).map_err(|error| Error::Oracle(format!("the case cannot be written: {error}")))?;
        question.push(b'\n');
        self.questions.write_all(&question).doing(|| "the oracle of feasibility takes no question".to_owned())?;
        let mut line = String::new();
        self.answers.read_line(&mut line).doing(|| "the oracle of feasibility gives no answer".to_owned())?;
        match serde_json::from_str(&line) {
            Ok(Reply::Answer(answer)) => Ok(answer),
            Ok(Reply::Refused { error }) => Err(Error::Oracle(error)),
            Err(error) if line.is_empty() => Err(Error::Oracle(format!("it ended without an answer ({error})"))),
            Err(error) => Err(Error::Oracle(format!("it answered {line:?}: {error}"))),
        }
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // It holds nothing that an end could harm.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! ROOT. The inputs of a new generation, when an operator acts: accounts looked up again, environment files and what
//! is passed on read again, the release resolved again. Never reads a unit, and never runs for a crash.

use std::collections::BTreeMap;
use std::path::Path;

use super::Manager;
use super::inputs::{Inputs, questions, resolved};
use crate::policy::ServiceId;
use crate::sys::errno::reason;
use crate::sys::files;
use crate::unit::{self, ENVIRONMENT_FILE_BYTES_MAX, Unit};
use crate::wire::accounts::{Answer, Question};
use crate::wire::control::{Failed, Failure};

impl Manager {
    /// Makes the inputs of what is to be started anew: of the next generation, or of the same where nothing of it
    /// runs. They are kept before anything of it is in the state. On a refusal everything is as it was.
    pub(super) fn renew_inputs(&mut self, ids: &[ServiceId], next: bool) -> Result<(), Box<Failed>> {
        let asked = self.questions_of(ids);
        let answers = self.look_up(&asked);
        let (mut fresh, mut failures) = (Vec::new(), Vec::new());
        for id in ids {
            let Some(known) = self.services.get(id) else { continue };
            let Some(unit) = known.unit.clone() else { continue };
            let before = known.inputs.clone();
            match self.renewed(&unit, before, &answers) {
                Ok(inputs) => fresh.push((*id, inputs)),
                Err(words) => failures.push(failure(self.name_of(*id), &words)),
            }
        }
        if !failures.is_empty() {
            let first = failures.remove(0);
            return Err(Box::new(Failed { first, others: failures }));
        }
        for (id, inputs) in fresh {
            let Some(newest) = self.world.get(id).map(|service| service.newest) else { continue };
            let Some(known) = self.services.get_mut(&id) else { continue };
            let before = std::mem::replace(&mut known.inputs, inputs);
            if next {
                // Those before stay for as long as anything is of them.
                known.older.entry(newest).or_insert(before);
            }
            self.keep_inputs(id, if next { newest + 1 } else { newest });
        }
        Ok(())
    }

    fn questions_of(&self, ids: &[ServiceId]) -> Vec<Question> {
        let units = ids.iter().filter_map(|id| self.unit_of(*id));
        let mut asked: Vec<Question> = units.flat_map(|unit| questions(unit, self.user)).collect();
        asked.sort();
        asked.dedup();
        asked
    }

    fn renewed(
        &mut self,
        unit: &Unit,
        before: Inputs,
        answers: &BTreeMap<Question, Answer>,
    ) -> Result<Inputs, String> {
        let account = before.account.clone();
        let mut inputs = before;
        inputs.resolve(unit, self.user, answers)?;
        if let (Some(old), Some(new)) = (&account, &inputs.account)
            && old.uid != new.uid
        {
            return Err(format!(
                "the user `{}` has become number {}; it was {}, whose files are not the new one's\n\
                 hint: give the name its number back, or its files to {} and start supervise again",
                new.name, new.uid, old.uid, new.uid
            ));
        }
        self.read_inputs(unit, &mut inputs);
        match inputs.unread.take() {
            Some(words) => Err(words),
            None => Ok(inputs),
        }
    }

    /// Reads what a unit with its account has besides its text. What cannot be read is kept as the reason why
    /// nothing starts.
    pub(super) fn read_inputs(&mut self, unit: &Unit, inputs: &mut Inputs) {
        inputs.directory = resolved(unit);
        inputs.pass_environment(unit);
        match self.environment_files(unit, inputs) {
            Ok(variables) => (inputs.files, inputs.unread) = (variables, None),
            Err(words) => inputs.unread = Some(words),
        }
    }

    /// The variables of a unit's environment files, in order. The error has the file and the line, and no value.
    fn environment_files(&mut self, unit: &Unit, inputs: &Inputs) -> Result<Vec<(String, String)>, String> {
        let mut variables = Vec::new();
        for path in &unit.service.environment_files {
            let shown = path.display();
            let bytes = self.read_file(unit, inputs, path).map_err(|why| {
                format!("reading the environment file {shown}: {why}\nhint: mend it, or take it out of `environment-files`")
            })?;
            let text = String::from_utf8(bytes)
                .map_err(|_| format!("{shown}: not UTF-8\nhint: save it as UTF-8"))?;
            let read =
                unit::environment_file(&text).map_err(|(line, words)| format!("{shown}:{line}: {words}"))?;
            variables.extend(read);
        }
        Ok(variables)
    }

    /// With root's rights only where nobody else could have put something else in its way; otherwise as the
    /// service itself would.
    fn read_file(&mut self, unit: &Unit, inputs: &Inputs, path: &Path) -> Result<Vec<u8>, String> {
        let most = ENVIRONMENT_FILE_BYTES_MAX;
        if self.user == 0 && matches!(files::unsafe_part(path, 0), Ok(None)) {
            return files::read_steady(path, most as u64)
                .map(|(bytes, ..)| bytes)
                .map_err(|error| reason(&error));
        }
        let account = inputs.account.as_ref().ok_or("the service's user is not known")?;
        let identity = (self.user == 0).then(|| inputs.identity(unit, account));
        self.read_as(path, most, identity)
    }
}

fn failure(service: &str, words: &str) -> Failure {
    let (said, hint) = match words.split_once("\nhint: ") {
        Some((said, hint)) => (said, Some(hint.to_owned())),
        None => (words, None),
    };
    Failure {
        service: service.to_owned(),
        step: "reading what it starts with".to_owned(),
        reason: said.to_owned(),
        hint,
        ..Failure::default()
    }
}

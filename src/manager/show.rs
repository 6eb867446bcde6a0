//! ROOT. What a service is made of, for `show`: its unit as its generation has it, and the plan of its next start.
//! Never reads the disk, never shows a value of the environment.

use super::Manager;
use super::answer::Asker;
use super::inputs::Which;
use crate::policy::ServiceId;
use crate::unit;
use crate::wire::control::{Failed, Failure, Refusal, Reply, Row, Shown};
use crate::wire::verb::Right;

/// The most bytes of one value.
const MOST_VALUE: usize = 4096;
/// The most values of a reply; far more than there are keys.
const MOST_ROWS: usize = 512;

impl Manager {
    /// Shows one service.
    pub(super) fn answer_show(&mut self, asker: Asker<'_>, name: &str, exec: bool) {
        let Asker { session, caller } = asker;
        let found = self.resolve(&[name.to_owned()], caller, Right::Logs).map(|found| found.first().copied());
        let reply = match found {
            Err(refusal) => Reply::Refused(refusal),
            Ok(None) => return,
            Ok(Some(id)) => match self.rows(id, exec) {
                Ok(mut rows) => {
                    rows.truncate(MOST_ROWS);
                    rows.iter_mut().for_each(cut);
                    let generation = self.world.get(id).map_or(0, |service| service.generation.into());
                    Reply::Shown(Shown { service: self.name_of(id).to_owned(), generation, rows })
                }
                Err(reason) => {
                    let first = Failure {
                        service: self.name_of(id).to_owned(),
                        step: if exec { "planning its start" } else { "reading its unit" }.to_owned(),
                        reason,
                        ..Failure::default()
                    };
                    Reply::Refused(Refusal::Failed(Box::new(Failed { first, others: Vec::new() })))
                }
            },
        };
        self.reply(session, &reply, true);
    }

    fn rows(&self, id: ServiceId, exec: bool) -> Result<Vec<Row>, String> {
        if exec {
            return self.plan_rows(id);
        }
        let known = self.services.get(&id).ok_or("there is no such service")?;
        // The places were forgotten when the unit was read; the text it was read from is still there.
        let unit = known.inputs.unit().map_err(|problems| {
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            all.join("\n")
        })?;
        let layers = &known.inputs.layers;
        let layers: Vec<unit::Layer<'_>> =
            layers.iter().map(|layer| unit::Layer { path: &layer.path, text: &layer.text }).collect();
        let rows = unit.effective(&layers).into_iter();
        Ok(rows
            .map(|row| Row {
                key: row.key,
                value: row.value,
                from: row.from.unwrap_or_else(|| "default".to_owned()),
            })
            .collect())
    }

    fn plan_rows(&self, id: ServiceId) -> Result<Vec<Row>, String> {
        let service = self.world.get(id).ok_or("there is no such service")?;
        let (run, generation) = (service.last_run, service.generation);
        let plan =
            self.exec_plan(id, Which { run, instance: 1, generation, before: None, rehearsal: false }, "")?;
        let rows = plan.to_string();
        let parted = rows.lines().filter_map(|line| line.split_once("  ").or_else(|| line.split_once(' ')));
        Ok(parted
            .map(|(key, value)| Row {
                key: key.to_owned(),
                value: value.trim_start().to_owned(),
                from: String::new(),
            })
            .collect())
    }
}

fn cut(row: &mut Row) {
    let end = row.value.floor_char_boundary(MOST_VALUE);
    if end < row.value.len() {
        row.value.truncate(end);
        row.value.push('…');
    }
}

//! ROOT. Errands: a process of our own looks up accounts, or reads a file with a service's rights, and is given a few
//! seconds. Never does either itself.

use crate::sys::errno::reason;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::kept::News;
use super::{Manager, open_null};
use crate::plan::{ExecPlan, FIXED_PATH, Identity};
use crate::sys::{clock, fds, memfd, parent, process};
use crate::wire::accounts::{Answer, Question, lines};

/// Milliseconds that an errand has; name services have them for all questions together.
const WITHIN_MS: u64 = 5_000;
/// Bytes that an errand's answer may have: the longest file, and many accounts.
const MOST_ANSWER: usize = 4 * 1024 * 1024;

impl Manager {
    /// The answers that came in time. What is missing from them was not answered.
    pub(super) fn look_up(&mut self, questions: &[Question]) -> BTreeMap<Question, Answer> {
        if questions.is_empty() {
            return BTreeMap::new();
        }
        let mut argv = vec!["supervise".to_owned(), "lookup".to_owned()];
        argv.extend(questions.iter().map(Question::encode));
        let nobody = (self.user == 0).then(|| Identity::new(0, 0, &[0]).with_capabilities(0));
        match self.errand(argv, nobody) {
            Ok(text) => lines(&String::from_utf8_lossy(&text)).into_iter().collect(),
            Err(error) => {
                log::error!("looking up accounts: {}", reason(&error));
                BTreeMap::new()
            }
        }
    }

    /// What is in a file, read with the rights of `identity` and no others. The error is the end of a sentence.
    pub(super) fn read_as(
        &mut self,
        path: &Path,
        most: usize,
        identity: Option<Identity>,
    ) -> Result<Vec<u8>, String> {
        let argv =
            ["supervise", "read", &most.to_string(), &path.to_string_lossy()].map(str::to_owned).to_vec();
        let answer = self.errand(argv, identity).map_err(|error| reason(&error))?;
        match answer.split_first() {
            Some((b'o', bytes)) => Ok(bytes.to_vec()),
            Some((b'e', words)) => Err(String::from_utf8_lossy(words).into_owned()),
            Some(_) | None => Err("the process that was to read it ended without an answer".to_owned()),
        }
    }

    /// What a process of our own writes to its standard output within the deadline. The loop waits for it.
    fn errand(&mut self, argv: Vec<String>, identity: Option<Identity>) -> io::Result<Vec<u8>> {
        let deadline = clock::monotonic_ms() + WITHIN_MS;
        self.await_zygote(deadline)?;
        let plan = ExecPlan {
            argv,
            // In a clone of the zygote this is our own binary, whatever has become of the file.
            candidates: vec!["/proc/self/exe".to_owned()],
            env: vec![format!("PATH={FIXED_PATH}"), "LANG=C.UTF-8".to_owned()],
            pid_variables: Vec::new(),
            directory: "/".to_owned(),
            identity,
            umask: 0o077,
            limits: Vec::new(),
            nice: None,
            oom_score_adj: None,
            cpus: Vec::new(),
            sockets: Vec::new(),
        };
        let plan = plan.encode().map_err(|unfit| io::Error::other(unfit.to_string()))?;
        let plan = memfd::sealed(c"supervise-lookup", &plan)?;
        let (gate_read, gate) = fds::pipe(0)?;
        let (report, report_write) = fds::pipe(0)?;
        let (answers, answers_write) = fds::pipe(0)?;
        let null = open_null()?; // as standard error too: it may have a service's user, who could take what it holds
        let parcel = [
            plan.as_fd(),
            gate_read.as_fd(),
            report_write.as_fd(),
            null.as_fd(),
            answers_write.as_fd(),
            null.as_fd(),
        ];
        let pidfd = self.clone_now(&parcel, deadline)?;
        drop((gate_read, report_write, answers_write, report));
        fds::write(gate.as_fd(), b"1")?;
        let text = read_until(answers.as_fd(), deadline)?;
        let _ = process::signal(pidfd.as_fd(), libc::SIGKILL); // one that hangs is not waited for
        Ok(text)
    }

    /// Waits for a link to the zygote.
    fn await_zygote(&mut self, deadline: u64) -> io::Result<()> {
        while self.starts.raw_link().is_none() {
            let mut news = Vec::new();
            self.kept.listen(&mut news);
            for one in news {
                match one {
                    News::Zygote(link) => self.attach_zygote(link),
                    News::Logger(link) => self.attach_logger(link),
                    News::Signal(signal) => self.early_signals.push(signal),
                    News::Exits => {}
                    News::Ended => return Err(io::Error::other("the keeper has ended")),
                }
            }
            let left = deadline.saturating_sub(clock::monotonic_ms());
            if left == 0 {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            parent::wait(&[], left.min(5) as i32, &mut [])?;
        }
        Ok(())
    }
}

fn read_until(fd: BorrowedFd<'_>, deadline: u64) -> io::Result<Vec<u8>> {
    fds::set_nonblocking(fd, true)?;
    let mut text = Vec::new();
    loop {
        if text.len() > MOST_ANSWER {
            return Err(io::Error::other("its answer has no end"));
        }
        let mut part = [0; 4096];
        match fds::read(fd, &mut part) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(part.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = deadline.saturating_sub(clock::monotonic_ms());
                if left == 0 {
                    log::error!("no answer within {} s from a process of our own", WITHIN_MS / 1000);
                    break;
                }
                parent::wait(&[fd], left as i32, &mut [false])?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}

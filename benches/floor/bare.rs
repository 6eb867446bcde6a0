//! The floor: a process that vforks, executes and waits, and does nothing else.
//!
//! Not even a libc stands between it and the kernel where it counts: the child of the vfork touches no
//! memory, so that one block of assembler is the whole of a start.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CString, OsStr, c_char};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::ptr;

use nix::sys::signal::{self, Signal};
use nix::sys::wait;
use nix::unistd::Pid;

use crate::probe;

/// The command that starts the probe under one name, as execve(2) wants it.
struct Command {
    _strings: [CString; 3],
    argv: [*const c_char; 4],
}

impl Command {
    fn new(program: &OsStr, fifo: &OsStr, number: u32) -> io::Result<Self> {
        let strings = [
            CString::new(program.as_bytes())?,
            CString::new(fifo.as_bytes())?,
            CString::new(probe::name(number))?,
        ];
        let [program, fifo, name] = &strings;
        let argv = [program.as_ptr(), fifo.as_ptr(), name.as_ptr(), ptr::null()];
        Ok(Self { _strings: strings, argv })
    }

    #[cfg(target_arch = "x86_64")]
    fn start(&self) -> io::Result<i32> {
        let [program, ..] = self.argv;
        let environment: [*const c_char; 1] = [ptr::null()];
        let pid: i64;
        // SAFETY: vfork(2) stops this process until the child has executed or ended, and the child only
        // makes the two system calls below: it writes to no memory that it shares with us.
        unsafe {
            std::arch::asm!(
                "mov eax, {vfork}",
                "syscall",
                "test rax, rax",
                "jnz 2f",
                "mov eax, {execve}",
                "mov rdi, r12",
                "mov rsi, r13",
                "mov rdx, r14",
                "syscall",
                "mov eax, {exit}",
                "mov edi, 127",
                "syscall",
                "2:",
                vfork = const libc::SYS_vfork,
                execve = const libc::SYS_execve,
                exit = const libc::SYS_exit_group,
                in("r12") program,
                in("r13") self.argv.as_ptr(),
                in("r14") environment.as_ptr(),
                out("rax") pid,
                out("rcx") _,
                out("r11") _,
                out("rdi") _,
                out("rsi") _,
                out("rdx") _,
            );
        }
        if pid < 0 { Err(io::Error::from_raw_os_error(-pid as i32)) } else { Ok(pid as i32) }
    }
}

/// `keep N PROBE FIFO`: starts so many, and each again as soon as it has ended. Its first record, number
/// `u32::MAX`, is its own, from just before the first start. Ends with SIGKILL.
pub fn keep(count: u32, program: &OsStr, fifo: &OsStr) -> io::Result<()> {
    let commands = (0..count).map(|n| Command::new(program, fifo, n)).collect::<io::Result<Vec<_>>>()?;
    let mut living = HashMap::with_capacity(count as usize * 2);
    probe::say(fifo, probe::BEGINNING)?;
    for (at, command) in commands.iter().enumerate() {
        living.insert(command.start()?, at);
    }
    loop {
        let pid = match wait::wait() {
            Ok(status) => status.pid().map_or(0, Pid::as_raw),
            Err(error) => return Err(error.into()),
        };
        if let Some(at) = living.remove(&pid)
            && let Some(command) = commands.get(at)
        {
            living.insert(command.start()?, at);
        }
    }
}

/// `serve SOCKET PROBE FIFO`: keeps one, answers `s` with a line, and at `r` ends it, waits for it, starts
/// the next one and answers.
pub fn serve(socket: &Path, program: &OsStr, fifo: &OsStr) -> io::Result<()> {
    let command = Command::new(program, fifo, 0)?;
    let listener = UnixListener::bind(socket)?;
    let mut pid = command.start()?;
    loop {
        let (mut client, _) = listener.accept()?;
        let mut verb = [0];
        client.read_exact(&mut verb)?;
        if verb == *b"r" {
            signal::kill(Pid::from_raw(pid), Signal::SIGTERM)?;
            wait::waitpid(Pid::from_raw(pid), None)?;
            pid = command.start()?;
        }
        client.write_all(b"running\n")?;
    }
}

/// `ask SOCKET VERB`: the client of that.
pub fn ask(socket: &Path, verb: &OsStr) -> io::Result<()> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.write_all(verb.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    print!("{answer}");
    Ok(())
}

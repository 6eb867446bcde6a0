//! ROOT. A kept socket before it is handed over: whoever held it before may have shut it down, shrunk its queue,
//! filtered it, connected it. Never touches what is right.

use std::io;
use std::os::fd::BorrowedFd;

use super::{Carries, Spot, Wanted};
use crate::sys::errno::reason;
use crate::sys::sockets::{self, Filter, Local};

/// Puts a socket right, or says why it cannot be. `alone`: nobody of its service runs who shares it, so that its
/// flags can be changed too.
pub fn repair(fd: BorrowedFd<'_>, wanted: &Wanted, alone: bool) -> Result<(), String> {
    let said = |error: io::Error| reason(&error);
    let spot = &wanted.address.spot;
    let of_unix = matches!(spot, Spot::Path(_) | Spot::Abstract(_));
    if of_unix && sockets::is_shut(fd).map_err(said)? {
        return Err("somebody who had it shut it down".to_owned());
    }
    match sockets::filter(fd).map_err(said)? {
        Filter::None => {}
        Filter::Loose => sockets::detach_filter(fd).map_err(said)?,
        Filter::Locked => return Err("somebody who had it locked a filter on it".to_owned()),
    }
    if wanted.address.has_queue() {
        sockets::listen(fd, wanted.backlog).map_err(said)?;
        if !sockets::is_listening(fd).map_err(said)? {
            return Err("it does not listen any more".to_owned());
        }
    } else if sockets::has_peer(fd) {
        sockets::dissolve(fd).map_err(said)?;
    }
    if let Spot::Inet { address, dual } = spot {
        if sockets::local(fd).map_err(said)? != (Local::Inet { address: *address, dual: *dual }) {
            return Err("somebody who had it bound it to another address".to_owned());
        }
        let tcp = wanted.address.carries == Carries::Stream;
        sockets::set_options(fd, address.is_ipv4(), tcp, wanted.options).map_err(said)?;
    }
    sockets::unshare(fd).map_err(said)?;
    if alone { sockets::plain_flags(fd).map_err(said) } else { Ok(()) }
}

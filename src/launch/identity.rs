//! CHILD. From whoever the zygote is to exactly the plan's identity, and the proof of it. Never warns: a step
//! that fails here ends the child.

use super::{Check, Failure, Stage};
use crate::sys::errno;
use crate::sys::identity::{self, Sets};
use crate::sys::image::Image;

/// One bit for each number that a capability can have.
const NUMBERS: u32 = u64::BITS;
const MAY_SET_GROUP: u64 = 1 << 6;
const MAY_SET_USER: u64 = 1 << 7;

/// Groups, group, bounding set, in this order: what only root can change, and the user not yet.
pub(super) fn narrow(image: &Image) -> Result<(), Failure> {
    let layout = image.layout();
    let Some((_, gid)) = layout.ids() else { return Ok(()) };
    set_groups(image.groups())?;
    Stage::Group.of(identity::set_group(gid))?;
    drop_bounding(layout.bounding())
}

/// User, capabilities, in this order, after [`narrow`].
pub(super) fn assume(image: &Image) -> Result<(), Failure> {
    let layout = image.layout();
    let Some((uid, _)) = layout.ids() else {
        // An ordinary user has nothing to change, and nothing beyond its user to keep.
        Stage::Capabilities.of(identity::ambient_clear())?;
        return Stage::Capabilities.of(identity::set_capabilities(Sets::default()));
    };
    if layout.ambient() != 0 {
        Stage::User.of(identity::keep_capabilities(true))?;
    }
    Stage::User.of(identity::set_user(uid))?;
    let permitted = Stage::Capabilities.of(identity::capabilities())?.permitted;
    Stage::Capabilities.of(identity::ambient_clear())?;
    Stage::Capabilities.of(identity::set_capabilities(wanted(image, uid, permitted)))?;
    for number in (0..NUMBERS).filter(|number| layout.ambient() & (1 << number) != 0) {
        Stage::Capabilities.with(number, identity::ambient_raise(number))?;
    }
    Stage::Capabilities.of(identity::keep_capabilities(false))
}

fn set_groups(groups: &[u32]) -> Result<(), Failure> {
    match identity::set_groups(groups) {
        // Where a user namespace forbids it, it is good enough to have the right groups already.
        Err(error)
            if errno::of(&error) == errno::EPERM && Stage::Groups.of(identity::groups_are(groups))? =>
        {
            Ok(())
        }
        result => Stage::Groups.of(result),
    }
}

/// Root keeps what it has and the plan lets it; anybody else has what is granted, and can hand it on.
fn wanted(image: &Image, uid: u32, permitted: u64) -> Sets {
    let (bounding, ambient) = (image.layout().bounding(), image.layout().ambient());
    let kept = if uid == 0 { permitted & bounding } else { ambient };
    Sets { effective: kept, permitted: kept, inheritable: ambient }
}

fn drop_bounding(kept: u64) -> Result<(), Failure> {
    for number in (0..NUMBERS).filter(|number| kept & (1 << number) == 0) {
        let Err(error) = identity::bounding_drop(number) else { continue };
        match errno::of(&error) {
            errno::EINVAL => break,
            // Without the right to drop it, it is good enough that somebody else has.
            errno::EPERM if !Stage::Bounding.with(number, identity::bounding_has(number))? => (),
            number_of_error => return Err(Stage::Bounding.failed(number_of_error, number)),
        }
    }
    Ok(())
}

/// Looks at everything again, and tries to go back. Whatever is not as the plan says ends the child.
pub(super) fn verify(image: &Image) -> Result<(), Failure> {
    let layout = image.layout();
    let users = Stage::Verify.of(identity::users())?;
    let groups = Stage::Verify.of(identity::groups())?;
    let Some((uid, gid)) = layout.ids() else {
        hold(Check::Users, users.all(users.real))?;
        hold(Check::Groups, groups.all(groups.real))?;
        hold(Check::NotRoot, users.real != 0)?;
        return verify_capabilities(Sets::default(), u64::MAX, 0);
    };
    hold(Check::Users, users.all(uid))?;
    hold(Check::Groups, groups.all(gid))?;
    hold(Check::Supplementary, Stage::Verify.of(identity::groups_are(image.groups()))?)?;
    if uid != 0 && layout.ambient() & MAY_SET_USER == 0 {
        hold(Check::WayBackToUser, !identity::regains_root_user())?;
    }
    if uid != 0 && gid != 0 && layout.ambient() & MAY_SET_GROUP == 0 {
        hold(Check::WayBackToGroup, !identity::regains_root_group())?;
    }
    let permitted = Stage::Verify.of(identity::capabilities())?.permitted;
    verify_capabilities(wanted(image, uid, permitted), layout.bounding(), layout.ambient())
}

fn verify_capabilities(wanted: Sets, bounding: u64, ambient: u64) -> Result<(), Failure> {
    let now = Stage::Verify.of(identity::capabilities())?;
    hold(Check::Effective, now.effective == wanted.effective)?;
    hold(Check::Permitted, now.permitted == wanted.permitted)?;
    hold(Check::Inheritable, now.inheritable == wanted.inheritable)?;
    for number in 0..NUMBERS {
        let bit = 1 << number;
        match identity::bounding_has(number) {
            Ok(there) => hold(Check::Bounding, !there || bounding & bit != 0)?,
            Err(error) if errno::of(&error) == errno::EINVAL => break,
            Err(error) => return Err(Stage::Verify.failed(errno::of(&error), Check::Bounding as u32)),
        }
    }
    // The kernel keeps the ambient set inside the inheritable one, so there can be no others.
    for number in (0..NUMBERS).filter(|number| ambient & (1 << number) != 0) {
        hold(Check::Ambient, Stage::Verify.of(identity::ambient_has(number))?)?;
    }
    Ok(())
}

fn hold(check: Check, holds: bool) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Stage::Verify.failed(0, check as u32)) }
}

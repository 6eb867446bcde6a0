//! What supervise's own processes say to each other and keep: garbled by whatever accident, it is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use supervise::plan::image::Layout;
use supervise::wire::{accounts, binder, handover, keeper, logger, probe, settings, state, zygote};

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(bytes);
    match which % 18 {
        0 => drop(keeper::Head::decode(bytes)),
        1 => drop(keeper::Entry::decode(bytes)),
        2 => drop(keeper::ExitRecord::decode(bytes)),
        3 => drop(keeper::Carried::decode_all(bytes)),
        4 => drop(zygote::Spawn::decode(bytes)),
        5 => drop(zygote::Reply::decode(bytes)),
        6 => drop(zygote::Report::decode(bytes)),
        7 => drop(zygote::Piece::decode(bytes)),
        8 => drop(logger::Order::decode(bytes)),
        9 => drop(logger::Report::decode(bytes)),
        10 => state::records(bytes).for_each(drop),
        11 => drop((probe::Task::decode(&text), probe::Finding::decode(&text))),
        12 => drop((binder::Task::decode(&text), binder::Done::decode(bytes))),
        13 => drop(handover::Holder::decode(&text)),
        14 => drop(accounts::Question::decode(&text)),
        15 => drop(accounts::Answer::decode(&text)),
        16 => drop(settings::LogUser::parse(&text)),
        _ => drop(Layout::parse(bytes)),
    }
});

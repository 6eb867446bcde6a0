//! What any process that may connect can send to the control socket: the frames, the calls, what they ask for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use supervise::wire::request::understand;
use supervise::wire::varlink::{Call, Frames, MOST_CALL};
use supervise::wire::verb::{Right, Rights};

fuzz_target!(|data: &[u8]| {
    let mut frames = Frames::new(MOST_CALL);
    let mut rest = data;
    loop {
        let (now, later) = rest.split_at(rest.len().min(frames.room()));
        if frames.push(now).is_err() {
            return;
        }
        rest = later;
        while let Ok(Some(frame)) = frames.take() {
            let Ok(call) = Call::decode(&frame) else { continue };
            // Written again it is the same call.
            let bytes = call.encode();
            assert_eq!(bytes.last(), Some(&0));
            for rights in [Rights::EVERYTHING, Rights::up_to(Right::Status)] {
                let _ = understand(&call, rights);
            }
        }
        if rest.is_empty() || frames.room() == 0 {
            return;
        }
    }
});

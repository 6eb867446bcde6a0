//! What a service can send to its notify socket.
#![no_main]

use libfuzzer_sys::fuzz_target;
use supervise::wire::notify::parse;

fuzz_target!(|data: &[u8]| {
    let _ = parse(data);
});

//! Unit files, drop-ins and environment files: any text is a unit or problems that can be printed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use supervise::unit::{Layer, Unit, environment_file};

fuzz_target!(|text: &str| {
    let _ = environment_file(text);
    // A second file, where there is one, is laid over the first.
    let (own, over) = text.split_once("\n#over\n").unwrap_or((text, ""));
    let layers =
        [Layer { path: "/u/web.toml", text: own }, Layer { path: "/u/web.toml.d/over.toml", text: over }];
    if let Err(problems) = Unit::parse_ahead("web", &layers) {
        assert!(!problems.is_empty());
        for problem in problems {
            assert!(!problem.to_string().is_empty());
        }
    }
});

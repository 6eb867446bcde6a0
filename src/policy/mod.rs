//! PURE. What should happen to each service: goal and phase in, actions and the next deadline out. Never I/O, a clock, randomness or a pid.

//! LOG. The services' pipes to files. Never holds a capability.

/// Bytes of the state that the keeper keeps for the logger.
pub const STATE_BYTES: usize = 4096;

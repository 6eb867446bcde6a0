//! LOG. The services' pipes to files. Never holds a capability.

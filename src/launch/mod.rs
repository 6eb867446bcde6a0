//! CHILD. An execution plan to a running command with exactly those rights. Never goes on after a failed step, never allocates.

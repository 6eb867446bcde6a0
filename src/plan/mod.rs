//! PURE. Unit, sockets and identity to an execution plan, a value that prints and compares. Never resolves a name.

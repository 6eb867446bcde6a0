//! ROOT. The parent of everything: keeps descriptors, writes down exits, starts the others again. Never parses, never allocates after start.

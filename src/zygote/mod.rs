//! ROOT. Clones itself for each start, and nothing else.

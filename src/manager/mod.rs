//! ROOT. One thread, one loop: reads units, asks policy, acts through sys, answers control. Never decides, never unsafe.

mod kept;
mod store;

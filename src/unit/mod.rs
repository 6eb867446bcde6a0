//! PURE. Unit files: text in, typed units or every problem with its place out. Never touches a file.

//! Parse, bind, run.

fn main() {}

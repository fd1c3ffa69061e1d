//! The container's entrypoint and the operator's command.

fn main() {}

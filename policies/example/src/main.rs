//! The `pointsman` program with two policies more.

fn main() -> std::process::ExitCode {
    let mut registry = pointsman::builtin();
    pointsman_example::register(&mut registry).expect("the names are new");
    pointsman::cli::run(registry)
}

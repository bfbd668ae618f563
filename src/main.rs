//! The `pointsman` program with its built-in schemes. A program with more of them is as short: see the library's front page.

fn main() -> std::process::ExitCode {
    pointsman::cli::run(pointsman::builtin())
}

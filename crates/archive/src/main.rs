//! A worker by itself: jobs on standard input, answers on standard output.

use std::process::ExitCode;

fn main() -> ExitCode {
    tributary_archive::worker::serve(std::io::stdin(), std::io::stdout()).exit_code()
}

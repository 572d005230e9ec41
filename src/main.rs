//! The `vestibule` program.

#[global_allocator]
static HEAP: vestibule::site::Heap = vestibule::site::Heap;

fn main() -> std::process::ExitCode {
    vestibule::cli::main()
}

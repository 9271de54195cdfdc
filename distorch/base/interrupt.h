#pragma once

namespace distorch {

/// The flag that Ctrl-C (or a server's /interrupt) raises. Long work asks between its pieces and
/// stops by throwing Error(Interrupted); the flag is cleared by whoever starts the next run.
void request_interrupt() noexcept;  // safe inside a signal handler
bool interrupt_requested() noexcept;
void clear_interrupt() noexcept;

/// Throws Error(Interrupted) when the flag is up.
void throw_if_interrupted();

}  // namespace distorch

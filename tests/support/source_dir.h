#pragma once
#include <filesystem>

namespace distorch::test {

/// The checkout: $DISTORCH_SOURCE_DIR for a program that was taken to another machine, else where
/// it was built. Only tests/main.cpp is compiled with that path, so that a compiler cache serves
/// every checkout.
std::filesystem::path source_dir();

inline std::filesystem::path parity_dir() { return source_dir() / "tests" / "parity"; }

}  // namespace distorch::test

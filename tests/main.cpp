#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstdlib>

#include "tests/support/source_dir.h"

std::filesystem::path distorch::test::source_dir() {
  const char* elsewhere = std::getenv("DISTORCH_SOURCE_DIR");
  return elsewhere && *elsewhere ? elsewhere : DISTORCH_SOURCE_DIR;
}

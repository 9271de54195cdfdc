#include "distorch/cli/workflow_run.h"

#include <c10/util/Exception.h>
#include <doctest/doctest.h>

#include <new>

#include "distorch/base/error.h"

using namespace distorch;

namespace {

/// How the failure of node 5 is told to whoever asked for the run.
Error told(std::exception_ptr problem) {
  graph::RunResult result;
  result.status = graph::RunStatus::Error;
  result.error = graph::ExecutionError{.node_id = "5", .node_type = "KSampler"};
  result.exception = std::move(problem);
  try {
    cli::rethrow_with_node(result);
  } catch (const Error& error) {
    return error;
  }
  FAIL("nothing was thrown");
  return Error(ErrorKind::Internal, "", "");
}

}  // namespace

TEST_CASE("workflow run: out of memory stays out of memory, whoever threw it") {
  c10::OutOfMemoryError torch({__func__, __FILE__, 1}, "CUDA out of memory");
  Error own(ErrorKind::OutOfMemory, "cuda:0", "has no room");
  for (const auto& problem : {std::make_exception_ptr(torch), std::make_exception_ptr(own),
                              std::make_exception_ptr(std::bad_alloc())}) {
    auto error = told(problem);
    CHECK(error.kind() == ErrorKind::OutOfMemory);
    CHECK(error.where().find("node 5 (KSampler)") == 0);
  }
  CHECK(told(std::make_exception_ptr(std::runtime_error("x"))).kind() == ErrorKind::Internal);
}

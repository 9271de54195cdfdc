#pragma once

#include <cstdint>
#include <functional>

namespace distorch::device {

/// Runs body(first, last) over parts of [begin, end) that together are all of it, each of at least
/// `grain` indices but for the last, on as many of torch's threads as at::get_num_threads() says.
/// In one piece and in this thread where it is called from such a body, or where there is one thread
/// or too little to do. The first error of a body is thrown again when all have ended.
/// In place of at::parallel_for, which is a template in a header: compiled without OpenMP, as all of
/// our files but one are, it uses one thread.
void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain,
                  const std::function<void(std::int64_t, std::int64_t)>& body);

}  // namespace distorch::device

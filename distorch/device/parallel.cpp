// Compiled with OpenMP (CMakeLists.txt of this folder), whose threads are those of torch's own operations.
#include "distorch/device/parallel.h"

#include <ATen/Parallel.h>

namespace distorch::device {

void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain,
                  const std::function<void(std::int64_t, std::int64_t)>& body) {
  at::parallel_for(begin, end, grain, body);
}

}  // namespace distorch::device

#include "distorch/device/recording.h"

#include "distorch/device/kind.h"

namespace distorch::device {

std::unique_ptr<Recording> record(c10::Device device, const std::function<at::Tensor()>& body,
                                  const Recording* beside) {
  return kind_of(device.type()).record(device.index(), body, beside);
}

}  // namespace distorch::device

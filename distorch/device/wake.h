#pragma once
#include <string>

namespace distorch::device {

/// Has a device get ready on a thread of its own, where that takes long: an NVIDIA driver needs 0.1 to
/// 0.2 s for its context, while torch's libraries are loaded. Does nothing for a device that is not
/// there, and tells no failures: who uses the device meets them again. Error(Usage) for no device name.
void wake(const std::string& name);

}  // namespace distorch::device

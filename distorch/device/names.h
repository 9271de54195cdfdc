#pragma once
#include <string>
#include <vector>

namespace distorch::device {

/// The names of list_devices() without "cpu", in its order, at no cost: nothing about the devices is
/// asked.
std::vector<std::string> accelerator_names();

}  // namespace distorch::device

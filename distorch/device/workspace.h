#pragma once
#include <c10/core/Device.h>

#include <cstdint>

namespace distorch::device {

/// Bytes that torch's libraries keep of a device's memory beside all tensors, once a thread has
/// multiplied matrices there on the stream that computes and on the one that records: cuBLAS has a
/// workspace of 32 MiB for each from Hopper on, of 8.1 MiB on older cards. 0 for other devices.
/// Source: torch, aten/src/ATen/cuda/CublasHandlePool.cpp.
std::int64_t workspace_bytes(c10::Device device);

}  // namespace distorch::device

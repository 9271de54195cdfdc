#pragma once
#include <ATen/core/Tensor.h>

// Functions of one float, computed by ATen as the reference computes them: its vector library
// rounds some values otherwise than the C library does, and a last bit of a sigma can move a
// Brownian query by 1e-6 in time, which is 1e-3 in noise.
namespace distorch::sampling::f32 {

float log(float x);
float exp(float x);
float expm1(float x);
float sqrt(float x);
float logit(float x);
float sigmoid(float x);

}  // namespace distorch::sampling::f32

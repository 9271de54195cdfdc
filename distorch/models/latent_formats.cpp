#include "distorch/models/latent_formats.h"

namespace distorch::models {

LatentFormat sd_latent() {
  return {.scale_factor = 0.18215,
          .rgb_factors = {{0.3512, 0.2297, 0.3227},
                          {0.3250, 0.4974, 0.2350},
                          {-0.2829, 0.1762, 0.2721},
                          {-0.2120, -0.2616, -0.7177}}};
}

LatentFormat sdxl_latent() {
  return {.scale_factor = 0.13025,
          .rgb_factors = {{0.3651, 0.4232, 0.4341},
                          {-0.2533, -0.0042, 0.1068},
                          {0.1076, 0.1111, -0.0362},
                          {-0.3165, -0.2492, -0.2188}},
          .rgb_bias = {0.1084, -0.0175, -0.0011}};
}

LatentFormat playground_latent() {
  return {.scale_factor = 0.5,
          .mean = {-1.6574, 1.886, -1.383, 2.5155},
          .deviation = {8.4927, 5.9022, 6.5498, 5.2299},
          .rgb_factors = {{0.3920, 0.4054, 0.4549},
                          {-0.2634, -0.0196, 0.0653},
                          {0.0568, 0.1687, -0.0755},
                          {-0.3112, -0.2359, -0.2076}}};
}

}  // namespace distorch::models

#include "distorch/models/control/borrowing.h"

#include "distorch/models/qwen_image/fun_control_net.h"
#include "distorch/models/sd3/large_control_net.h"

namespace distorch::models::control {

bool is_borrowing(const weights::Checkpoint& file) {
  return sd3::is_large_control_net(file) || qwen_image::is_fun_control_net(file);
}

Merged borrowed_from(const weights::Checkpoint& file, const weights::Checkpoint& model) {
  return sd3::is_large_control_net(file) ? sd3::large_control_over(file, model)
                                         : qwen_image::fun_control_over(file, model);
}

Preparation preparation_of(const ControlNetwork& network) {
  const auto* prepared = dynamic_cast<const Prepared*>(&network);
  return prepared ? prepared->preparation() : Preparation{};
}

}  // namespace distorch::models::control

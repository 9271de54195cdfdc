#include "distorch/nodes/wan_wrapper_latents.h"

#include <c10/util/intrusive_ptr.h>

#include <map>
#include <mutex>
#include <utility>

namespace distorch::nodes::wan_wrapper {

namespace {

using Weak = c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;

struct Entry {
  Weak tensor;
  LatentNotes notes;
};

class Book {
 public:
  void write(const at::Tensor& samples, LatentNotes notes) {
    std::lock_guard lock(mutex_);
    std::erase_if(entries_, [](const auto& entry) { return entry.second.tensor.expired(); });
    entries_.insert_or_assign(samples.unsafeGetTensorImpl(),
                              Entry{Weak(samples.getIntrusivePtr()), std::move(notes)});
  }
  LatentNotes read(const at::Tensor& samples) {
    std::lock_guard lock(mutex_);
    auto found = entries_.find(samples.unsafeGetTensorImpl());
    // Another tensor may lie where one was that has gone.
    if (found == entries_.end() || found->second.tensor.expired()) return {};
    return found->second.notes;
  }

 private:
  std::mutex mutex_;
  std::map<const c10::TensorImpl*, Entry> entries_;
};

Book& book() {
  static Book one;
  return one;
}

}  // namespace

void note(const at::Tensor& samples, LatentNotes notes) { book().write(samples, std::move(notes)); }

LatentNotes notes_of(const at::Tensor& samples) { return book().read(samples); }

}  // namespace distorch::nodes::wan_wrapper

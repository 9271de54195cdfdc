#pragma once
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

/// What is inside a Python pickle, as data. Private to pickle.cpp.
namespace distorch::formats {

struct PickleValue;
using PickleRef = PickleValue*;  // into the Pickle that holds it

struct PickleNone {};
/// "torch.FloatStorage": a name that Python would import. Nothing is imported here.
struct PickleName {
  std::string name;
};
/// What Python would call with these arguments, kept as it is.
struct PickleCall {
  PickleRef callee;
  std::vector<PickleRef> arguments;
};
/// A value that the pickle leaves to its reader (a storage of a tensor).
struct PickleExternal {
  PickleRef id;
};
struct PickleList {
  std::vector<PickleRef> items;  // a tuple, a list or a set
};
struct PickleDict {
  std::vector<std::pair<PickleRef, PickleRef>> entries;
};

struct PickleValue {
  std::variant<PickleNone, bool, std::int64_t, double, std::string, PickleName, PickleCall,
               PickleExternal, PickleList, PickleDict>
      content;

  template <class T>
  const T* as() const {
    return std::get_if<T>(&content);
  }
};

/// All values of a pickle: they may hold each other in circles.
struct Pickle {
  std::deque<PickleValue> values;
  PickleRef root = nullptr;
};

/// Reads one pickle from the start of `bytes` (protocols 0 to 5 as far as torch.save uses them) and
/// gives its value; `used` becomes its length. Nothing in it is run: a call is only noted down.
/// Error(Format, where) for what is cut short, nested too deep, larger than the limits, or written
/// with instructions that torch.save has no use for.
Pickle read_pickle(std::string_view bytes, const std::string& where, std::size_t& used);

}  // namespace distorch::formats

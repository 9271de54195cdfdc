#include "distorch/formats/unpickler.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <unordered_map>

#include "distorch/base/error.h"

namespace distorch::formats {

namespace {

constexpr std::size_t kMostValues = 20'000'000;  // that one pickle may make

/// Python's pickle machine without the part that calls: a stack, marks on it, a memo.
class Machine {
 public:
  Machine(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  Pickle run(std::size_t& used) {
    for (;;) {
      auto op = static_cast<unsigned char>(take(1)[0]);
      if (op == '.') break;
      if (!constant(op) && !collection(op) && !memory(op) && !object(op))
        fail(fmt::format("has an instruction (0x{:02x}) that is not known", op));
    }
    used = at_;
    pickle_.root = pop();
    return std::move(pickle_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorKind::Format, where_, "the pickle in it " + what);
  }

  // --- bytes
  std::string_view take(std::size_t count) {
    if (count > bytes_.size() - at_) fail("ends too early");
    auto part = bytes_.substr(at_, count);
    at_ += count;
    return part;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string line() {
    auto end = bytes_.find('\n', at_);
    if (end == bytes_.npos) fail("ends too early");
    std::string text(take(end - at_));
    take(1);
    return text;
  }
  std::size_t length8() {
    auto length = number<std::uint64_t>();
    if (length > bytes_.size()) fail("ends too early");
    return static_cast<std::size_t>(length);
  }

  // --- stack
  void charge(std::size_t count) {
    made_ += count;
    if (made_ > kMostValues) fail("holds too many values");
  }
  template <class T>
  PickleRef make(T value) {
    charge(1);
    return &pickle_.values.emplace_back(PickleValue{std::move(value)});
  }
  void push(PickleRef value) {
    charge(1);
    stack_.push_back(value);
  }
  PickleRef pop() {
    if (stack_.empty() || (!marks_.empty() && stack_.size() <= marks_.back()))
      fail("takes more than it made");
    auto* value = stack_.back();
    stack_.pop_back();
    return value;
  }
  PickleValue& top() {
    if (stack_.empty()) fail("takes more than it made");
    return *stack_.back();
  }
  std::vector<PickleRef> pop_mark() {
    if (marks_.empty() || marks_.back() > stack_.size()) fail("closes what it never opened");
    auto from = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<PickleRef> values(from, stack_.end());
    stack_.erase(from, stack_.end());
    marks_.pop_back();
    return values;
  }
  PickleRef pop_tuple(std::size_t count) {
    std::vector<PickleRef> items(count);
    for (auto i = count; i-- > 0;) items[i] = pop();
    return make(PickleList{std::move(items)});
  }

  // --- instructions; false: not one of these
  bool constant(unsigned char op) {
    switch (op) {
      case 0x80: take(1); return true;                  // PROTO
      case 0x95: take(8); return true;                  // FRAME
      case 'N': push(make(PickleNone{})); return true;  // NONE
      case 0x88: push(make(true)); return true;         // NEWTRUE
      case 0x89: push(make(false)); return true;        // NEWFALSE
      case 'J': push_integer(number<std::int32_t>()); return true;
      case 'K': push_integer(number<std::uint8_t>()); return true;
      case 'M': push_integer(number<std::uint16_t>()); return true;
      case 0x8a: push_long(number<std::uint8_t>()); return true;
      case 0x8b: push_long(number<std::uint32_t>()); return true;
      case 'G': push_float(); return true;
      case 'X': push_text(number<std::uint32_t>()); return true;
      case 0x8c: push_text(number<std::uint8_t>()); return true;
      case 0x8d: push_text(length8()); return true;
      case 'T':
      case 'B': push_text(number<std::uint32_t>()); return true;
      case 'U':
      case 'C': push_text(number<std::uint8_t>()); return true;
      case 0x8e: push_text(length8()); return true;
      default: return false;
    }
  }
  void push_integer(std::int64_t value) { push(make(value)); }
  void push_text(std::size_t length) { push(make(std::string(take(length)))); }
  void push_float() {
    auto bits = number<std::uint64_t>();
    push(make(std::bit_cast<double>(__builtin_bswap64(bits))));
  }
  // Little-endian two's complement. Longer numbers (magic ones) keep their bytes as a text.
  void push_long(std::size_t length) {
    auto text = take(length);
    if (length > 8) return push(make(std::string(text)));
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < length; ++i)
      value |= static_cast<std::uint64_t>(static_cast<unsigned char>(text[i])) << (8 * i);
    if (length > 0 && length < 8 && (text[length - 1] & 0x80)) value |= ~0ull << (8 * length);
    push_integer(static_cast<std::int64_t>(value));
  }

  bool collection(unsigned char op) {
    switch (op) {
      case '(': open(); return true;
      case ')':
      case ']':
      case 0x8f: push(make(PickleList{})); return true;
      case '}': push(make(PickleDict{})); return true;
      case 't':
      case 'l':
      case 0x91: push(make(PickleList{pop_mark()})); return true;
      case 0x85: push(pop_tuple(1)); return true;
      case 0x86: push(pop_tuple(2)); return true;
      case 0x87: push(pop_tuple(3)); return true;
      case 'd': push(make(PickleDict{})); return true;
      case 'a': append({pop()}); return true;
      case 'e':
      case 0x90: append(pop_mark()); return true;
      case 's': {
        auto value = pop(), key = pop();
        set_items({key, value});
        return true;
      }
      case 'u': set_items(pop_mark()); return true;
      case '0': pop(); return true;
      case '1': pop_mark(); return true;
      case '2':
        top();
        push(stack_.back());
        return true;
      default: return false;
    }
  }
  void open() {
    charge(1);
    marks_.push_back(stack_.size());
  }
  void append(std::vector<PickleRef> values) {
    if (auto* list = std::get_if<PickleList>(&top().content))
      list->items.insert(list->items.end(), values.begin(), values.end());
  }
  // A call's result takes items too: an OrderedDict is made by a call.
  void set_items(const std::vector<PickleRef>& values) {
    auto& content = top().content;
    if (std::holds_alternative<PickleCall>(content)) content = PickleDict{};
    auto* dict = std::get_if<PickleDict>(&content);
    if (!dict) return;
    for (std::size_t i = 0; i + 1 < values.size(); i += 2)
      dict->entries.emplace_back(values[i], values[i + 1]);
  }

  bool memory(unsigned char op) {
    switch (op) {
      case 'q': remember(number<std::uint8_t>()); return true;
      case 'r': remember(number<std::uint32_t>()); return true;
      case 0x94: remember(memo_.size()); return true;
      case 'h': recall(number<std::uint8_t>()); return true;
      case 'j': recall(number<std::uint32_t>()); return true;
      default: return false;
    }
  }
  void remember(std::size_t index) {
    top();
    memo_[index] = stack_.back();
  }
  void recall(std::size_t index) {
    auto found = memo_.find(index);
    if (found == memo_.end()) fail("recalls what it never had");
    push(found->second);
  }

  bool object(unsigned char op) {
    switch (op) {
      case 'c': {
        auto module = line(), name = line();
        push(make(PickleName{module + "." + name}));
        return true;
      }
      case 0x93: {
        auto name = pop(), module = pop();
        const auto *a = module->as<std::string>(), *b = name->as<std::string>();
        if (!a || !b) fail("names something without a text");
        push(make(PickleName{*a + "." + *b}));
        return true;
      }
      case 'R':
      case 0x81: {
        auto arguments = pop(), callee = pop();
        const auto* list = arguments->as<PickleList>();
        if (list) charge(list->items.size());
        push(make(PickleCall{callee, list ? list->items : std::vector<PickleRef>()}));
        return true;
      }
      case 'b': pop(); return true;  // a state for the object below, which stays as it is
      case 'Q': push(make(PickleExternal{pop()})); return true;
      default: return false;
    }
  }

  std::string_view bytes_;
  const std::string& where_;
  std::size_t at_ = 0, made_ = 0;
  Pickle pickle_;
  std::vector<PickleRef> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::size_t, PickleRef> memo_;
};

}  // namespace

Pickle read_pickle(std::string_view bytes, const std::string& where, std::size_t& used) {
  return Machine(bytes, where).run(used);
}

}  // namespace distorch::formats

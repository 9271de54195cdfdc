#include "distorch/nodes/math_expression.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "distorch/base/error.h"

namespace distorch::nodes {

namespace {

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorKind::Usage, "expression", what);
}

/// A list is `values`, and what stands in square or round brackets with commas.
using Values = std::vector<Number>;
using Operand = std::variant<Number, Values>;

bool is_float(const Number& x) { return std::holds_alternative<double>(x); }

std::int64_t whole(const Number& x) {
  if (is_float(x)) fail("an operation on bits needs whole numbers");
  return std::holds_alternative<bool>(x) ? std::get<bool>(x) : std::get<std::int64_t>(x);
}

bool truth(const Number& x) { return to_double(x) != 0; }

std::int64_t fitting(__int128 value) {
  if (value < std::numeric_limits<std::int64_t>::min() ||
      value > std::numeric_limits<std::int64_t>::max())
    fail("an integer does not fit into 64 bits");
  return static_cast<std::int64_t>(value);
}

std::int64_t to_whole(double value) {
  if (!std::isfinite(value)) fail("what is not finite is no integer");
  if (!(value >= -0x1p63 && value < 0x1p63)) fail("an integer does not fit into 64 bits");
  return static_cast<std::int64_t>(value);
}

template <class Float, class Whole>
Number arithmetic(const Number& a, const Number& b, Float with_floats, Whole with_integers) {
  if (is_float(a) || is_float(b)) return with_floats(to_double(a), to_double(b));
  return fitting(with_integers(static_cast<__int128>(whole(a)), static_cast<__int128>(whole(b))));
}

Number add(const Number& a, const Number& b) {
  return arithmetic(a, b, std::plus<double>(), std::plus<__int128>());
}

Number subtract(const Number& a, const Number& b) {
  return arithmetic(a, b, std::minus<double>(), std::minus<__int128>());
}

Number multiply(const Number& a, const Number& b) {
  return arithmetic(a, b, std::multiplies<double>(), std::multiplies<__int128>());
}

Number divided(const Number& a, const Number& b) {
  if (to_double(b) == 0) fail("a division by zero");
  return to_double(a) / to_double(b);
}

/// The quotient that is not above the exact one, as // and % have it.
Number floor_divided(const Number& a, const Number& b) {
  if (to_double(b) == 0) fail("a division by zero");
  return arithmetic(
      a, b, [](double x, double y) { return std::floor(x / y); },
      [](__int128 x, __int128 y) {
        return x / y - ((x % y != 0) && ((x < 0) != (y < 0)) ? 1 : 0);
      });
}

Number remainder_of(const Number& a, const Number& b) {
  if (to_double(b) == 0) fail("a division by zero");
  return arithmetic(
      a, b,
      [](double x, double y) {
        auto rest = std::fmod(x, y);
        return rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest;
      },
      [](__int128 x, __int128 y) {
        auto rest = x % y;
        return rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest;
      });
}

Number power(const Number& a, const Number& b) {
  if (!is_float(a) && !is_float(b) && whole(b) >= 0) {
    __int128 result = 1, base = whole(a);
    if (base == 0 || base == 1 || base == -1)
      return fitting(base == -1 ? (whole(b) % 2 ? -1 : 1) : whole(b) == 0 ? 1 : base);
    for (auto left = whole(b); left > 0; --left) result = fitting(result * base);
    return static_cast<std::int64_t>(result);
  }
  if (to_double(a) == 0 && to_double(b) < 0) fail("a division by zero");
  auto result = std::pow(to_double(a), to_double(b));
  if (std::isnan(result)) fail("a power that is no real number");
  return result;
}

int order(const Number& a, const Number& b) {
  if (is_float(a) || is_float(b)) {
    auto x = to_double(a), y = to_double(b);
    return x < y ? -1 : x > y;
  }
  auto x = whole(a), y = whole(b);
  return x < y ? -1 : x > y;
}

Number negated(const Number& x) {
  return is_float(x) ? Number(-std::get<double>(x))
                     : Number(fitting(-static_cast<__int128>(whole(x))));
}

Number shifted(const Number& a, const Number& b, bool left) {
  auto by = whole(b);
  if (by < 0) fail("a shift by less than nothing");
  if (!left) return whole(a) >> std::min<std::int64_t>(by, 63);
  if (by > 63 && whole(a) != 0) fail("an integer does not fit into 64 bits");
  return fitting(static_cast<__int128>(whole(a)) << std::min<std::int64_t>(by, 63));
}

// --- functions

Number rounded(const Values& args) {
  if (args.size() == 1)
    return is_float(args[0]) ? Number(to_whole(std::nearbyint(std::get<double>(args[0]))))
                             : Number(whole(args[0]));
  auto digits = whole(args[1]);
  if (!is_float(args[0])) {
    if (digits >= 0) return whole(args[0]);
    auto unit = std::pow(10.0, static_cast<double>(-digits));
    return to_whole(std::nearbyint(to_double(args[0]) / unit) * unit);
  }
  // By way of its decimal digits, so that 2.675 is what it is and not what it looks like.
  if (digits > 300) return args[0];
  if (digits >= 0) return std::stod(fmt::format("{:.{}f}", std::get<double>(args[0]), digits));
  auto unit = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(std::get<double>(args[0]) / unit) * unit;
}

Number logarithm(const Values& args) {
  for (const auto& x : args)
    if (to_double(x) <= 0) fail("a logarithm of what is not above zero");
  auto value = std::log(to_double(args[0]));
  if (args.size() == 1) return value;
  return divided(value, std::log(to_double(args[1])));
}

Number root(const Values& args) {
  if (to_double(args[0]) < 0) fail("a square root of a negative number");
  return std::sqrt(to_double(args[0]));
}

Number positive_log(const Values& args, double (*log)(double)) {
  if (to_double(args[0]) <= 0) fail("a logarithm of what is not above zero");
  return log(to_double(args[0]));
}

Number absolute(const Values& args) {
  if (is_float(args[0])) return std::abs(std::get<double>(args[0]));
  return whole(args[0]) < 0 ? negated(args[0]) : Number(whole(args[0]));
}

Number total(const Values& args) {
  Number sum = std::int64_t{0};
  for (const auto& x : args) sum = add(sum, x);
  return sum;
}

Number extreme(const Values& args, int side) {
  if (args.empty()) fail("min or max of nothing");
  auto best = args[0];
  for (const auto& x : args)
    if (order(x, best) == side) best = x;
  return best;
}

struct Function {
  std::size_t least, most;
  std::function<Number(const Values&)> work;
  bool takes_list = false;
};

const std::map<std::string, Function>& functions() {
  constexpr std::size_t any = 1000;
  auto real = [](double (*f)(double)) {
    return [f](const Values& a) { return Number(f(to_double(a[0]))); };
  };
  static const std::map<std::string, Function> all = {
      {"sum", {0, any, total, true}},
      {"min", {1, any, [](const Values& a) { return extreme(a, -1); }, true}},
      {"max", {1, any, [](const Values& a) { return extreme(a, 1); }, true}},
      {"abs", {1, 1, absolute}},
      {"round", {1, 2, rounded}},
      {"pow", {2, 2, [](const Values& a) { return power(a[0], a[1]); }}},
      {"sqrt", {1, 1, root}},
      {"ceil",
       {1, 1, [](const Values& a) { return Number(to_whole(std::ceil(to_double(a[0])))); }}},
      {"floor",
       {1, 1, [](const Values& a) { return Number(to_whole(std::floor(to_double(a[0])))); }}},
      {"log", {1, 2, logarithm}},
      {"log2", {1, 1, [](const Values& a) { return positive_log(a, std::log2); }}},
      {"log10", {1, 1, [](const Values& a) { return positive_log(a, std::log10); }}},
      {"sin", {1, 1, real(std::sin)}},
      {"cos", {1, 1, real(std::cos)}},
      {"tan", {1, 1, real(std::tan)}},
      {"int",
       {1, 1,
        [](const Values& a) {
          return is_float(a[0]) ? Number(to_whole(std::trunc(std::get<double>(a[0]))))
                                : Number(whole(a[0]));
        }}},
      {"float", {1, 1, [](const Values& a) { return Number(to_double(a[0])); }}},
  };
  return all;
}

// --- parser; lowest precedence first. What it makes is computed afterwards: of a condition only the
// branch that is taken.

using Node = std::function<Operand()>;

const Number& number(const Operand& operand) {
  if (!std::holds_alternative<Number>(operand)) fail("a list where a number is needed");
  return std::get<Number>(operand);
}

Number computed(const Node& node) { return number(node()); }

template <class Work>
Node joined(Node a, Node b, Work work) {
  return [a = std::move(a), b = std::move(b), work] {
    // In two steps: the left one comes first.
    auto x = computed(a);
    auto y = computed(b);
    return Operand(work(x, y));
  };
}

template <class Work>
Node bits(Node a, Node b, Work work) {
  return joined(std::move(a), std::move(b), [work](const Number& x, const Number& y) {
    auto result = work(whole(x), whole(y));
    bool truths = std::holds_alternative<bool>(x) && std::holds_alternative<bool>(y);
    return truths ? Number(result != 0) : Number(result);
  });
}

bool compares(const std::string& sign, const Number& a, const Number& b) {
  if (std::isnan(to_double(a)) || std::isnan(to_double(b))) return sign == "!=";
  auto relation = order(a, b);
  if (sign == "==") return relation == 0;
  if (sign == "!=") return relation != 0;
  if (sign == "<") return relation < 0;
  if (sign == ">") return relation > 0;
  return sign == "<=" ? relation <= 0 : relation >= 0;
}

class Parser {
 public:
  Parser(std::string_view text, const std::vector<std::pair<std::string, Number>>& names)
      : text_(text), names_(names) {}

  Node run() {
    if (text_.size() > kLongest) fail("it is too long");
    auto result = choice();
    skip_space();
    if (at_ < text_.size()) wrong("something that does not belong there");
    return result;
  }

 private:
  static constexpr std::size_t kLongest = 10'000;
  static constexpr int kDeepest = 100;

  /// Counts how deep the parser is.
  class Level {
   public:
    explicit Level(int& depth) : depth_(depth) {
      if (++depth_ > kDeepest) fail("it is nested too deep");
    }
    ~Level() { --depth_; }

   private:
    int& depth_;
  };

  [[noreturn]] void wrong(const std::string& what) const {
    fail(fmt::format("{} at character {} of '{}'", what, at_ + 1, text_));
  }

  // --- tokens
  void skip_space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }
  static bool is_name(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

  bool take(std::string_view token) {
    skip_space();
    if (text_.substr(at_, token.size()) != token) return false;
    auto end = at_ + token.size();
    if (is_name(token.back()) && end < text_.size() && is_name(text_[end])) return false;
    at_ = end;
    return true;
  }
  /// An operator that is not the start of a longer one.
  bool take_alone(char token, std::string_view longer = {}) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != token) return false;
    if (at_ + 1 < text_.size() && longer.find(text_[at_ + 1]) != longer.npos) return false;
    ++at_;
    return true;
  }

  // --- grammar
  Node choice() {
    Level level(depth_);
    auto first = disjunction();
    if (!take("if")) return first;
    auto condition = disjunction();
    if (!take("else")) wrong("an 'else' is missing");
    return [first, condition, other = choice()] {
      return truth(computed(condition)) ? first() : other();
    };
  }

  Node disjunction() {
    auto left = conjunction();
    while (take("or"))
      left = [left, right = conjunction()] {
        auto value = computed(left);
        return truth(value) ? Operand(value) : right();
      };
    return left;
  }

  Node conjunction() {
    auto left = inversion();
    while (take("and"))
      left = [left, right = inversion()] {
        auto value = computed(left);
        return truth(value) ? right() : Operand(value);
      };
    return left;
  }

  Node inversion() {
    if (!take("not")) return comparison();
    Level level(depth_);
    return [value = inversion()] { return Operand(Number(!truth(computed(value)))); };
  }

  std::string comparison_sign() {
    for (const char* sign : {"==", "!=", "<=", ">="})
      if (take(sign)) return sign;
    if (take_alone('<', "<")) return "<";
    if (take_alone('>', ">")) return ">";
    return "";
  }

  Node comparison() {
    auto first = bit_or();
    std::vector<std::pair<std::string, Node>> chain;
    for (auto sign = comparison_sign(); !sign.empty(); sign = comparison_sign())
      chain.emplace_back(sign, bit_or());
    if (chain.empty()) return first;
    return [first, chain] {
      auto left = computed(first);
      for (const auto& [sign, next] : chain) {
        auto right = computed(next);
        if (!compares(sign, left, right)) return Operand(Number(false));
        left = right;
      }
      return Operand(Number(true));
    };
  }

  Node bit_or() {
    auto left = bit_xor();
    while (take_alone('|')) left = bits(left, bit_xor(), std::bit_or<std::int64_t>());
    return left;
  }
  Node bit_xor() {
    auto left = bit_and();
    while (take_alone('^')) left = bits(left, bit_and(), std::bit_xor<std::int64_t>());
    return left;
  }
  Node bit_and() {
    auto left = shift();
    while (take_alone('&')) left = bits(left, shift(), std::bit_and<std::int64_t>());
    return left;
  }

  Node shift() {
    auto left = sum();
    for (;;) {
      bool to_the_left = take("<<");
      if (!to_the_left && !take(">>")) return left;
      left = joined(left, sum(), [to_the_left](const Number& a, const Number& b) {
        return shifted(a, b, to_the_left);
      });
    }
  }

  Node sum() {
    auto left = product();
    for (;;) {
      if (take_alone('+'))
        left = joined(left, product(), add);
      else if (take_alone('-'))
        left = joined(left, product(), subtract);
      else
        return left;
    }
  }

  Node product() {
    auto left = sign();
    for (;;) {
      if (take("//"))
        left = joined(left, sign(), floor_divided);
      else if (take_alone('/'))
        left = joined(left, sign(), divided);
      else if (take_alone('%'))
        left = joined(left, sign(), remainder_of);
      else if (take_alone('*', "*"))
        left = joined(left, sign(), multiply);
      else
        return left;
    }
  }

  Node sign() {
    Level level(depth_);
    if (take_alone('-')) return [value = sign()] { return Operand(negated(computed(value))); };
    if (take_alone('+'))
      return [value = sign()] { return Operand(add(computed(value), Number(std::int64_t{0}))); };
    if (take_alone('~'))
      return [value = sign()] { return Operand(Number(~whole(computed(value)))); };
    auto base = subscripted();
    return take("**") ? joined(base, sign(), power) : base;
  }

  Node subscripted() {
    auto value = atom();
    while (take_alone('[')) {
      auto index = choice();
      if (!take_alone(']')) wrong("a closing bracket is missing");
      value = [value, index] { return element(value(), whole(computed(index))); };
    }
    return value;
  }

  static Operand element(const Operand& value, std::int64_t index) {
    if (!std::holds_alternative<Values>(value)) fail("only lists have elements");
    const auto& list = std::get<Values>(value);
    auto size = static_cast<std::int64_t>(list.size());
    if (index < -size || index >= size) fail("a list has no such element");
    return list[static_cast<std::size_t>(index < 0 ? index + size : index)];
  }

  std::vector<Node> elements(char end) {
    std::vector<Node> result;
    while (!take_alone(end)) {
      if (!result.empty() && !take_alone(',')) wrong("a comma is missing");
      if (take_alone(end)) break;
      result.push_back(choice());
    }
    return result;
  }

  static Node list_of(std::vector<Node> nodes) {
    return [nodes = std::move(nodes)] {
      Values values;
      for (const auto& node : nodes) values.push_back(computed(node));
      return Operand(values);
    };
  }

  Node atom() {
    skip_space();
    if (at_ >= text_.size()) wrong("a number is missing");
    char c = text_[at_];
    if (std::isdigit(static_cast<unsigned char>(c)) || c == '.') return constant(literal());
    if (take_alone('[')) return list_of(elements(']'));
    if (take_alone('(')) return bracketed();
    if (!is_name(c)) wrong("something that is no number");
    auto start = at_;
    while (at_ < text_.size() && is_name(text_[at_])) ++at_;
    return named(std::string(text_.substr(start, at_ - start)));
  }

  Node bracketed() {
    auto first = choice();
    if (take_alone(')')) return first;
    if (!take_alone(',')) wrong("a closing bracket is missing");
    auto list = elements(')');
    list.insert(list.begin(), first);
    return list_of(std::move(list));
  }

  static Node constant(Operand value) {
    return [value = std::move(value)] { return value; };
  }

  Node named(const std::string& name) {
    if (name == "True" || name == "False") return constant(Number(name == "True"));
    if (auto found = functions().find(name); found != functions().end() && take_alone('('))
      return call(name, found->second, elements(')'));
    Values all;
    std::string known;
    for (const auto& [other, value] : names_) {
      if (other == name) return constant(value);
      all.push_back(value);
      known += (known.empty() ? "" : ", ") + other;
    }
    if (name == "values") return constant(all);
    fail(fmt::format("'{}' is no value here (there are: {})", name, known));
  }

  static Node call(const std::string& name, const Function& function, std::vector<Node> nodes) {
    return [name, &function, nodes = std::move(nodes)] {
      Values args;
      for (const auto& node : nodes) {
        auto operand = node();
        bool list = std::holds_alternative<Values>(operand);
        if (list && function.takes_list && nodes.size() == 1)
          args = std::get<Values>(operand);
        else
          args.push_back(number(operand));
      }
      if (args.size() < function.least || args.size() > function.most)
        fail(fmt::format("'{}' does not take {} values", name, args.size()));
      return Operand(function.work(args));
    };
  }

  Number literal() {
    auto start = at_;
    std::string digits;
    bool hex = text_.substr(start, 2) == "0x" || text_.substr(start, 2) == "0X";
    for (; at_ < text_.size(); ++at_) {
      char c = text_[at_];
      bool sign_of_exponent = (c == '+' || c == '-') && !digits.empty() && !hex &&
                              (digits.back() == 'e' || digits.back() == 'E');
      if (!is_name(c) && c != '.' && !sign_of_exponent) break;
      if (c != '_') digits += c;
    }
    std::size_t used = 0;
    try {
      Number value;
      if (!hex && digits.find_first_of(".eE") != digits.npos)
        value = std::stod(digits, &used);
      else
        value = static_cast<std::int64_t>(std::stoll(digits, &used, hex ? 16 : 10));
      if (used == digits.size()) return value;
    } catch (const std::logic_error&) {
      // The message below says it.
    }
    fail(fmt::format("'{}' is no number that can be held", text_.substr(start, at_ - start)));
  }

  std::string_view text_;
  const std::vector<std::pair<std::string, Number>>& names_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

double to_double(const Number& number) {
  return std::visit([](auto value) { return static_cast<double>(value); }, number);
}

Number evaluate(std::string_view expression,
                const std::vector<std::pair<std::string, Number>>& names) {
  return computed(Parser(expression, names).run());
}

}  // namespace distorch::nodes

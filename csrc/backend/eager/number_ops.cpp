#include "backend/eager/number_ops.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "base/check.h"

namespace flashpoint::eager {

namespace {

[[noreturn]] void fail(const char* why) {
  throw std::domain_error(std::string("[flashpoint] arithmetic on numbers: ") + why);
}

double divide(double a, double b) {
  if (b == 0) fail("division by zero");
  return a / b;
}

double modulo(double a, double b, double* quotient) {
  if (b == 0) fail("division by zero");
  double rest = std::fmod(a, b);
  double div = (a - rest) / b;
  if (rest != 0) {
    if ((b < 0) != (rest < 0)) {
      rest += b;
      div -= 1.0;
    }
  } else {
    rest = std::copysign(0.0, b);
  }
  *quotient = std::floor(div);
  if (div == 0) {
    *quotient = std::copysign(0.0, a / b);
  } else if (div - *quotient > 0.5) {
    *quotient += 1.0;
  }
  return rest;
}

double power(double a, double b) {
  if (a == 0 && b < 0) fail("zero to a negative power");
  const bool finite = std::isfinite(a) && std::isfinite(b);
  if (finite && a < 0 && b != std::floor(b)) fail("a complex result");
  const double result = std::pow(a, b);
  if (finite && std::isinf(result)) fail("overflow");
  return result;
}

double compute_float(std::string_view operation, double a, double b) {
  if (operation == "add") return a + b;
  if (operation == "sub") return a - b;
  if (operation == "mul") return a * b;
  if (operation == "div") return divide(a, b);
  if (operation == "pow") return power(a, b);
  double quotient = 0;
  if (operation == "mod") return modulo(a, b, &quotient);
  if (operation == "floordiv") return modulo(a, b, &quotient), quotient;
  if (operation == "neg") return -a;
  if (operation == "abs") return std::fabs(a);
  if (operation == "float") return a;
  if (operation == "sqrt") {
    if (a < 0) fail("the root of a negative number");
    return std::sqrt(a);
  }
  FP_CHECK(false, "an unknown operation on numbers");
}

int64_t int_power(int64_t base, int64_t exponent) {
  if (exponent < 0) fail("a negative power of an integer");
  int64_t result = 1;
  while (true) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) fail("overflow");
    exponent >>= 1;
    if (exponent == 0) return result;
    if (__builtin_mul_overflow(base, base, &base)) fail("overflow");
  }
}

int64_t compute_int(std::string_view operation, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (operation == "add") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (operation == "sub") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (operation == "mul") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (operation == "pow") {
    result = int_power(a, b);
  } else if (operation == "neg" || (operation == "abs" && a < 0)) {
    overflow = __builtin_sub_overflow(int64_t{0}, a, &result);
  } else if (operation == "abs" || operation == "int") {
    result = a;
  } else if (operation == "mod" || operation == "floordiv") {
    if (b == 0) fail("division by zero");
    if (b == -1) {
      overflow = __builtin_sub_overflow(int64_t{0}, a, &result);
      if (operation == "mod") return 0;
    } else {
      const int64_t rest = a % b;
      const bool down = rest != 0 && (rest < 0) != (b < 0);
      result = operation == "mod" ? rest + (down ? b : 0) : a / b - (down ? 1 : 0);
    }
  } else {
    FP_CHECK(false, "an unknown operation on numbers");
  }
  if (overflow) fail("overflow");
  return result;
}

int64_t truncated(double a) {
  constexpr double kLimit = 9223372036854775808.0;  // 2^63
  if (!(a > -kLimit && a < kLimit)) fail("no integer of 64 bits");
  return static_cast<int64_t>(a);
}

double as_double(const c10::IValue& number) {
  return number.isInt() ? static_cast<double>(number.toInt()) : number.isNone() ? 0.0 : number.toDouble();
}

bool is_comparison(std::string_view operation) {
  for (const char* name : {"lt", "le", "eq", "ne", "gt", "ge"}) {
    if (operation == name) return true;
  }
  return false;
}

template <typename Number>
int64_t compare(std::string_view operation, Number a, Number b) {
  if (operation == "lt") return a < b;
  if (operation == "le") return a <= b;
  if (operation == "eq") return a == b;
  if (operation == "ne") return a != b;
  return operation == "gt" ? a > b : a >= b;
}

// Only what doubles hold exactly: CPython rounds neither an integer that it compares with a float, nor the
// operands of a division.
constexpr int64_t kExact = int64_t{1} << 53;
bool is_exact(const c10::IValue& number) {
  return !number.isInt() || (number.toInt() <= kExact && number.toInt() >= -kExact);
}

}  // namespace

c10::IValue compute_number(std::string_view operation, const c10::IValue& a, const c10::IValue& b) {
  const bool ints = a.isInt() && (b.isInt() || b.isNone());
  if (is_comparison(operation)) {
    if (ints) return compare(operation, a.toInt(), b.toInt());
    if (!is_exact(a) || !is_exact(b)) fail("large integers");
    return compare(operation, as_double(a), as_double(b));
  }
  if (operation == "int") return ints ? a.toInt() : truncated(a.toDouble());
  if (ints && operation == "div") {
    if (!is_exact(a) || !is_exact(b)) fail("large integers");
  } else if (ints && operation != "float" && operation != "sqrt") {
    return compute_int(operation, a.toInt(), b.isNone() ? 0 : b.toInt());
  }
  return compute_float(operation, as_double(a), as_double(b));
}

}  // namespace flashpoint::eager

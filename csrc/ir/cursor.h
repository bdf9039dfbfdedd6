// A read position in IR text, with the few scanning primitives the parser needs.
//
// Blanks and tabs are skipped before every token, newlines never are: the IR is one op per line. The
// first failure throws ParseError, which ir::parse turns into a ParseResult; it goes no further.
#pragma once

#include <cctype>
#include <charconv>
#include <stdexcept>
#include <string>
#include <string_view>

namespace flashpoint::ir {

struct ParseError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}

  [[noreturn]] void fail(const std::string& what) const {
    size_t line = 1;
    for (size_t i = 0; i < at_ && i < text_.size(); ++i) line += text_[i] == '\n' ? 1 : 0;
    throw ParseError("line " + std::to_string(line) + ": " + what);
  }

  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  // The next character itself, blanks included.
  char raw() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  char next_raw() {
    if (at_ >= text_.size()) fail("unexpected end");
    return text_[at_++];
  }

  bool accept(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) fail(std::string("expected '") + c + "'");
  }
  bool at_word() {
    const char c = peek();
    return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_';
  }
  // Letters, digits and underscores.
  std::string_view word() {
    if (!at_word()) fail("expected a name");
    return take([](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; });
  }
  // A word without moving.
  std::string_view peek_word() {
    const size_t start = at_;
    const auto result = at_word() ? word() : std::string_view();
    at_ = start;
    return result;
  }
  template <typename Accept>
  std::string_view take(Accept&& accept_char) {
    peek();
    const size_t start = at_;
    while (at_ < text_.size() && accept_char(text_[at_])) ++at_;
    return text_.substr(start, at_ - start);
  }
  int64_t integer() {
    const auto digits =
        take([](char c) { return c == '-' || std::isdigit(static_cast<unsigned char>(c)) != 0; });
    int64_t value = 0;
    const auto end = digits.data() + digits.size();
    const auto result = std::from_chars(digits.data(), end, value);
    if (result.ec != std::errc() || result.ptr != end) fail("expected an integer");
    return value;
  }
  // The rest of the line, without its end.
  std::string_view rest_of_line() {
    return take([](char c) { return c != '\n'; });
  }
  void skip_empty_lines() {
    for (;;) {
      const char c = peek();
      if (c == '\n') {
        ++at_;
      } else if (c == '#') {
        rest_of_line();
      } else {
        return;
      }
    }
  }
  void end_of_line() {
    if (peek() == '\0') return;
    expect('\n');
  }

 private:
  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace flashpoint::ir

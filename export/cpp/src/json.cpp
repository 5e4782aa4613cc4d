#include "json.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <unordered_map>

#include "python_text.h"

namespace pcaseg {
namespace {

constexpr int deepest = 900;  // arrays and objects within each other; Python's stack ends near there too

bool is_digit(char32_t point) { return point >= '0' && point <= '9'; }

class Parser {
 public:
  explicit Parser(std::u32string text) : text_(std::move(text)) {}

  Json document() {
    skip_space();
    Json value = this->value();
    skip_space();
    if (at_ != text_.size()) fail("Extra data", at_);
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& reason, size_t place) const {
    size_t line = 1, start = 0;
    for (size_t i = 0; i < place && i < text_.size(); ++i) {
      if (text_[i] == '\n') {
        ++line;
        start = i + 1;
      }
    }
    throw std::invalid_argument(reason + ": line " + std::to_string(line) + " column " +
                                std::to_string(place - start + 1) + " (char " + std::to_string(place) + ")");
  }

  /// The character `ahead` of the place, 0 beyond the end.
  char32_t peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : 0; }

  bool at_end() const { return at_ >= text_.size(); }

  void skip_space() {
    while (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r') ++at_;
  }

  bool take(std::u32string_view word) {
    if (text_.compare(at_, word.size(), word) != 0) return false;
    at_ += word.size();
    return true;
  }

  Json value() {
    Json value;
    if (peek() == '"') {
      value.kind = Json::Kind::string;
      value.text = string();
    } else if (peek() == '{') {
      object(value);
    } else if (peek() == '[') {
      array(value);
    } else if (take(U"null")) {
      value.kind = Json::Kind::null;
    } else if (take(U"true") || take(U"false")) {
      value.kind = Json::Kind::boolean;
      value.truth = text_[at_ - 2] == 'u';
    } else {
      number(value);
    }
    return value;
  }

  void deeper(const char* kind) {
    if (++depth_ > deepest)
      throw std::invalid_argument(std::string("maximum recursion depth exceeded while decoding a JSON ") + kind +
                                  " from a unicode string");
  }

  void object(Json& value) {
    deeper("object");
    value.kind = Json::Kind::object;
    std::unordered_map<std::string, size_t> places;
    ++at_;
    skip_space();
    while (peek() != '}' || !places.empty()) {
      if (peek() != '"') fail("Expecting property name enclosed in double quotes", at_);
      const std::string key = string();
      skip_space();
      if (peek() != ':') fail("Expecting ':' delimiter", at_);
      ++at_;
      skip_space();
      Json member = this->value();
      const auto [place, is_new] = places.emplace(key, value.members.size());
      if (is_new) value.members.emplace_back(key, Json());
      std::swap(value.members[place->second].second, member);
      if (!is_new) value.replaced.push_back(std::move(member));
      if (closed('}')) break;
    }
    ++at_;
    --depth_;
  }

  void array(Json& value) {
    deeper("array");
    value.kind = Json::Kind::array;
    ++at_;
    skip_space();
    while (peek() != ']' || !value.items.empty()) {
      value.items.push_back(this->value());
      if (closed(']')) break;
    }
    ++at_;
    --depth_;
  }

  /// After a member: true at the closing bracket, false behind a comma.
  bool closed(char32_t bracket) {
    skip_space();
    if (peek() == bracket) return true;
    if (peek() != ',') fail("Expecting ',' delimiter", at_);
    ++at_;
    skip_space();
    return false;
  }

  std::string string() {
    std::string out;
    const size_t begin = at_++;
    while (true) {
      if (at_end()) fail("Unterminated string starting at", begin);
      const char32_t point = text_[at_];
      if (point < 0x20) fail("Invalid control character at", at_);
      ++at_;
      if (point == '"') return out;
      append_utf8(out, point == '\\' ? escaped(begin) : point);
    }
  }

  char32_t escaped(size_t begin) {
    static const std::u32string letters = U"\"\\/bfnrt", meanings = U"\"\\/\b\f\n\r\t";
    if (at_end()) fail("Unterminated string starting at", begin);
    const char32_t letter = text_[at_++];
    if (letter == 'u') return unicode();
    const size_t place = letters.find(letter);
    if (place == letters.npos) fail("Invalid \\escape", at_ - 2);
    return meanings[place];
  }

  char32_t unicode() {
    const char32_t first = four_digits();
    if (first < 0xd800 || first > 0xdbff || peek() != '\\' || peek(1) != 'u' || at_ + 6 >= text_.size()) return first;
    const size_t after_first = at_;
    at_ += 2;
    const char32_t second = four_digits();
    if (second >= 0xdc00 && second <= 0xdfff) return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    at_ = after_first;
    return first;
  }

  char32_t four_digits() {
    if (at_ + 4 >= text_.size()) fail("Invalid \\uXXXX escape", at_ - 1);
    char32_t number = 0;
    for (size_t i = 0; i < 4; ++i) {
      const char32_t point = text_[at_ + i], lower = point | 0x20;
      if (!is_digit(point) && (lower < 'a' || lower > 'f')) fail("Invalid \\uXXXX escape", at_ - 1);
      number = number * 16 + (is_digit(point) ? point - '0' : lower - 'a' + 10);
    }
    at_ += 4;
    return number;
  }

  void number(Json& value) {
    for (std::u32string_view word : {U"NaN", U"Infinity", U"-Infinity"}) {
      if (take(word)) {
        value.kind = Json::Kind::real;
        value.text = word == U"NaN" ? "nan" : word == U"Infinity" ? "inf" : "-inf";
        return;
      }
    }
    const size_t start = at_;
    if (peek() == '-') ++at_;
    if (!is_digit(peek())) fail("Expecting value", start);
    if (text_[at_++] != '0') skip_digits();
    value.kind = Json::Kind::integer;
    if (peek() == '.' && is_digit(peek(1))) {
      value.kind = Json::Kind::real;
      at_ += 2;
      skip_digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      const size_t sign = peek(1) == '+' || peek(1) == '-' ? 1 : 0;
      if (is_digit(peek(1 + sign))) {
        value.kind = Json::Kind::real;
        at_ += 1 + sign;
        skip_digits();
      }
    }
    value.text.assign(text_.begin() + start, text_.begin() + at_);
    if (value.text == "-0") value.text = "0";
  }

  void skip_digits() {
    while (is_digit(peek())) ++at_;
  }

  const std::u32string text_;
  size_t at_ = 0;
  int depth_ = 0;
};

/// A real number as Python writes it: the fewest digits that mean it, an exponent below 1e-4 and from 1e16 on.
std::string real(const std::string& text) {
  const double value = std::strtod(text.c_str(), nullptr);
  if (!std::isfinite(value)) return std::isnan(value) ? "nan" : value < 0 ? "-inf" : "inf";
  char digits[40];
  int precision = 0;
  do std::snprintf(digits, sizeof digits, "%.*e", precision, value);
  while (std::strtod(digits, nullptr) != value && ++precision < 17);
  const int exponent = std::atoi(std::string(digits).substr(std::string(digits).find('e') + 1).c_str());
  if (exponent < -4 || exponent >= 16) return digits;
  const int decimals = precision > exponent ? precision - exponent : 1;
  std::snprintf(digits, sizeof digits, "%.*f", decimals, value);
  return digits;
}

std::string dumped_string(const std::string& text) {
  std::string out = "\"";
  for (char byte : text) {
    static const std::string named = "\"\\\b\f\n\r\t", letters = "\"\\bfnrt";
    const size_t place = named.find(byte);
    if (place != named.npos) {
      out += '\\';
      out += letters[place];
    } else if (uint8_t(byte) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", unsigned(byte));
      out += escape;
    } else {
      out += byte;
    }
  }
  return out + '"';
}

/// Words in which JSON and Python's `repr` differ.
struct Notation {
  const char *null, *yes, *no, *nan, *infinity, *minus_infinity;
  std::string (*quote)(const std::string&);
};

const Notation as_json = {"null", "true", "false", "NaN", "Infinity", "-Infinity", dumped_string};
const Notation as_python = {"None", "True", "False", "nan", "inf", "-inf",
                            [](const std::string& text) { return repr(std::string_view(text)); }};

std::string written(const Json& value, const Notation& notation) {
  std::vector<std::string> parts;
  std::string number;
  switch (value.kind) {
    case Json::Kind::null: return notation.null;
    case Json::Kind::boolean: return value.truth ? notation.yes : notation.no;
    case Json::Kind::integer: return value.text;
    case Json::Kind::string: return notation.quote(value.text);
    case Json::Kind::real:
      number = real(value.text);
      return number == "nan" ? notation.nan : number == "inf" ? notation.infinity
           : number == "-inf" ? notation.minus_infinity : number;
    case Json::Kind::array:
      for (const Json& item : value.items) parts.push_back(written(item, notation));
      return "[" + join(parts, ", ") + "]";
    case Json::Kind::object:
      for (const auto& [key, member] : value.members)
        parts.push_back(notation.quote(key) + ": " + written(member, notation));
      return "{" + join(parts, ", ") + "}";
  }
  return "";
}

}  // namespace

const Json* Json::find(std::string_view name) const {
  for (const auto& [key, member] : members)
    if (key == name) return &member;
  return nullptr;
}

int64_t Json::whole() const { return std::strtoll(text.c_str(), nullptr, 10); }  // the nearest where it does not fit

Json parse_json(std::string_view bytes) {
  if (bytes.substr(0, 3) == "\xef\xbb\xbf") bytes.remove_prefix(3);
  return Parser(decode_utf8(bytes)).document();
}

std::string shown(const Json& value) {
  const std::string text = written(value, as_json);
  return decode_utf8(text).size() <= 60 ? text : start_of(text, 57) + "...";
}

std::string repr(const Json& value) { return written(value, as_python); }

}  // namespace pcaseg

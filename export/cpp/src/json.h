// JSON as Python's `json` reads and writes it: the same text is taken, and the same words refuse what is not.
//
// That is why no JSON library is used here: a manifest that was cut short or edited by hand has to give the sentence
// that the Python runtime gives, with its line, column and character.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pcaseg {

/// A value of any of JSON's types. Numbers keep their text, since whole ones may have any number of digits.
struct Json {
  enum class Kind { null, boolean, integer, real, string, array, object };

  Kind kind = Kind::null;
  bool truth = false;
  std::string text;                                   // of a string, in UTF-8, or of a number
  std::vector<Json> items;                            // of an array
  std::vector<std::pair<std::string, Json>> members;  // of an object, in the file's order; of equal keys the last value
  std::vector<Json> replaced;                         // the former values of equal keys

  /// The member of an object, or null where it has none of that name.
  const Json* find(std::string_view name) const;

  /// A whole number, cut to what 64 bits hold.
  int64_t whole() const;

};

/// Parses a whole document. Throws std::invalid_argument with Python's reason.
Json parse_json(std::string_view bytes);

/// A value as `json.dumps(value, ensure_ascii=False)`, cut to 60 characters.
std::string shown(const Json& value);

/// `repr` of what `json.loads` makes of it.
std::string repr(const Json& value);

}  // namespace pcaseg

#include "vocabulary.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <system_error>

#include "error.h"
#include "files.h"
#include "json.h"
#include "python_text.h"

namespace pcaseg {
namespace {

constexpr uint64_t most_bytes = uint64_t(1) << 32, most_header_bytes = 100'000'000;
constexpr size_t most_characters = 500;  // of a name
constexpr double unit_norm_tolerance = 1e-3;
const char* const make_anew = "; make it anew with pcaseg vocab";
const char* const header_fault = "Error while deserializing header: ";

using Kind = Json::Kind;

[[noreturn]] void refuse(const std::string& sentence) { throw Error(PCASEG_BAD_VOCABULARY, sentence); }

[[noreturn]] void damaged(const std::string& reason) { throw std::invalid_argument(reason); }

/// A safetensors file: eight bytes with the length of a JSON header, the header, and the tensors.
struct SafeTensors {
  Json metadata;  // an object, empty where the file has none
  Json tensors;   // the header's other members
  std::string data;
};

/// Bytes that one number of a type takes; 0 for an unknown type.
int64_t bytes_of(const std::string& type) {
  static const std::pair<const char*, int64_t> widths[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},
      {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4},     {"F64", 8},     {"I64", 8}, {"U64", 8},
  };
  for (const auto& [name, width] : widths)
    if (type == name) return width;
  return 0;
}

bool is_count(const Json& value) { return value.kind == Kind::integer && value.whole() >= 0; }

/// Bytes that a tensor lies in, checked against its shape and type: (first, one behind the last).
std::pair<int64_t, int64_t> place_of(const Json& tensor) {
  const Json *type = tensor.find("dtype"), *shape = tensor.find("shape"), *offsets = tensor.find("data_offsets");
  if (!type || !shape || !offsets || type->kind != Kind::string || shape->kind != Kind::array ||
      offsets->kind != Kind::array || offsets->items.size() != 2 || !is_count(offsets->items[0]) ||
      !is_count(offsets->items[1]) || bytes_of(type->text) == 0 || !tensor.replaced.empty())
    damaged(std::string(header_fault) + "invalid JSON in header");
  int64_t bytes = bytes_of(type->text);
  for (const Json& length : shape->items)
    if (!is_count(length) || __builtin_mul_overflow(bytes, length.whole(), &bytes))
      damaged(std::string(header_fault) + "invalid shape, data type, or offset for tensor");
  const int64_t first = offsets->items[0].whole(), end = offsets->items[1].whole();
  if (end < first || end - first != bytes)
    damaged(std::string(header_fault) + "invalid shape, data type, or offset for tensor");
  return {first, end};
}

SafeTensors parse(const std::string& bytes) {
  uint64_t length = 0;
  if (bytes.size() < sizeof length) damaged(std::string(header_fault) + "header too small");
  for (size_t i = sizeof length; i-- > 0;) length = length << 8 | uint8_t(bytes[i]);
  if (length > most_header_bytes) damaged(std::string(header_fault) + "header too large");
  if (length > bytes.size() - sizeof length) damaged(std::string(header_fault) + "invalid header length");
  SafeTensors file;
  try {
    file.tensors = parse_json(bytes.substr(sizeof length, length));
  } catch (const std::invalid_argument& reason) {
    damaged(std::string(header_fault) + "invalid JSON in header: " + reason.what());
  }
  if (file.tensors.kind != Kind::object) damaged(std::string(header_fault) + "invalid JSON in header");
  file.data = bytes.substr(sizeof length + length);
  auto& members = file.tensors.members;
  for (auto member = members.begin(); member != members.end(); ++member) {
    if (member->first != "__metadata__") continue;
    file.metadata = member->second;
    members.erase(member);
    break;
  }
  return file;
}

/// Checks that metadata are strings and that one tensor, if there is one, fills the rest of the file.
void check_whole(const SafeTensors& file) {
  if (file.metadata.kind != Kind::object && file.metadata.kind != Kind::null)
    damaged(std::string(header_fault) + "invalid JSON in header");
  for (const auto& [key, value] : file.metadata.members)
    if (value.kind != Kind::string) damaged(std::string(header_fault) + "invalid JSON in header");
  int64_t end = 0;
  for (const Json& tensor : file.tensors.replaced) place_of(tensor);  // the safetensors package checks these too
  for (const auto& [name, tensor] : file.tensors.members) end = std::max(end, place_of(tensor).second);
  if (end != int64_t(file.data.size())) damaged(std::string(header_fault) + "incomplete metadata, file not fully covered");
}

const std::string* metadata_of(const SafeTensors& file, const char* name) {
  const Json* found = file.metadata.find(name);
  return found == nullptr ? nullptr : &found->text;
}

/// The text of metadata that every vocabulary has. Throws std::invalid_argument: it lacks them.
const std::string& needed(const SafeTensors& file, const char* name) {
  const std::string* found = metadata_of(file, name);
  if (found == nullptr) damaged(std::string(name) + " is missing");
  return *found;
}

/// What Python calls the type of a value.
std::string type_name(const Json& value) {
  static const char* const names[] = {"NoneType", "bool", "int", "float", "str", "list", "dict"};
  return names[int(value.kind)];
}

/// What Python's `tuple` makes of a JSON text: the items of a list, the keys of an object, the characters of a string.
std::vector<Json> items_of(const std::string& text) {
  Json value = parse_json(text);
  if (value.kind == Kind::array) return std::move(value.items);
  if (value.kind != Kind::object && value.kind != Kind::string) damaged("'" + type_name(value) + "' object is not iterable");
  Json word;
  word.kind = Kind::string;
  const bool is_empty = value.kind == Kind::object ? value.members.empty() : value.text.empty();
  return std::vector<Json>(is_empty ? 0 : 1, word);  // not more is asked of them than that they are strings
}

/// Rows, objects and the kinds of prompts and synonyms, of files of the second format.
struct Tree {
  std::vector<Json> rows, objects;
};

Tree tree_of(const SafeTensors& file) {
  Tree tree{items_of(needed(file, "rows")), items_of(needed(file, "objects"))};
  const std::vector<Json> templates = items_of(needed(file, "templates"));
  const auto is_string = [](const Json& value) { return value.kind == Kind::string; };
  bool known = std::all_of(templates.begin(), templates.end(), is_string);
  if (known) {
    const std::string& synonyms = needed(file, "synonyms");
    known = synonyms == "best" || synonyms == "mean";
  }
  if (!known) damaged("templates or synonyms are of no known kind");
  return tree;
}

/// Takes over rows and objects where they say more than a row for each class and no parts; `tree` has some of each.
void plant(const Tree& tree, Vocabulary& vocabulary) {
  const int64_t count = int64_t(vocabulary.names.size());
  const auto& rows = tree.rows;
  const auto are_whole = [](const std::vector<Json>& values) {
    return std::all_of(values.begin(), values.end(), [](const Json& value) { return value.kind == Kind::integer; });
  };
  bool fits = are_whole(rows) && are_whole(tree.objects);
  fits = fits && (rows.empty() || (rows.front().whole() == 0 && rows.back().whole() == count - 1));
  int64_t last = 0;
  for (size_t i = 0; fits && i < rows.size(); ++i) {
    const int64_t row = rows[i].whole();
    fits = row == last || row == last + 1;
    last = row;
  }
  if (!fits) damaged("vocabulary: rows do not belong to " + std::to_string(count) + " classes in order" + make_anew);
  std::vector<int64_t> objects;
  for (const Json& object : tree.objects) objects.push_back(object.whole());
  const auto is_object = [&](int64_t object) { return object >= 0 && object < count && objects[size_t(object)] == object; };
  if (!objects.empty() && (int64_t(objects.size()) != count || !std::all_of(objects.begin(), objects.end(), is_object))) {
    std::vector<std::string> shown;
    for (size_t i = 0; i < objects.size() && i < 8; ++i) shown.push_back(repr(tree.objects[i]));
    damaged("vocabulary: " + std::to_string(count) + " names but objects (" + join(shown, ", ") +
            (shown.size() == 1 ? ",)" : ")") + make_anew);
  }
  if (!rows.empty() && int64_t(rows.size()) != count)
    for (const Json& row : rows) vocabulary.class_of_row.push_back(uint16_t(row.whole()));
  bool has_parts = false;
  for (size_t i = 0; i < objects.size(); ++i) has_parts |= objects[i] != int64_t(i);
  if (has_parts) vocabulary.objects.assign(objects.begin(), objects.end());
}

void check_count(size_t count) {
  if (count > size_t(most_classes))
    damaged("vocabulary: " + std::to_string(count) + " classes do not fit 16-bit labels; give at most 65535");
}

/// The names in a JSON list. Throws std::invalid_argument: what no vocabulary has.
std::vector<std::string> checked_names(const std::vector<Json>& names) {
  if (names.empty()) damaged("vocabulary: no class names; give at least one");
  check_count(names.size());
  std::vector<std::string> checked;
  for (const Json& value : names) {
    const std::string& name = value.text;
    const std::string place = "vocabulary: class " + std::to_string(checked.size());
    if (value.kind != Kind::string) damaged(place + " is " + type_name(value) + ", not a string; give names only");
    const size_t characters = decode_utf8(name).size();
    if (characters > most_characters)
      damaged(place + " (" + repr(std::string_view(start_of(name, 30))) + "...) has " + std::to_string(characters) +
              " characters; shorten it to 500 or fewer");
    if (name.substr(0, name.find(',')).find_first_not_of(" \t\n\r") == name.npos)  // the first synonym
      damaged(place + " is blank (" + repr(std::string_view(start_of(name, 60))) + "); remove it or name it");
    checked.push_back(name);
  }
  return checked;
}

/// Refuses rows that are not of unit norm.
void check_norms(const Vocabulary& vocabulary) {
  for (int64_t row = 0; row < vocabulary.rows(); ++row) {
    double squares = 0;
    for (int64_t i = 0; i < vocabulary.width; ++i) {
      const double value = vocabulary.embeddings[row * vocabulary.width + i];
      squares += value * value;
    }
    if (!(std::abs(std::sqrt(squares) - 1) <= unit_norm_tolerance))  // written so that NaN fails too
      damaged(std::string("vocabulary: embeddings are not of unit norm or not finite") + make_anew);
  }
}

/// The embeddings, as they lie in the file: rows of float32.
Vocabulary filled(const SafeTensors& file, const std::string& path) {
  const std::string *format = metadata_of(file, "format"), *version = metadata_of(file, "version");
  const Json* tensor = file.tensors.members.size() == 1 ? file.tensors.find("embeddings") : nullptr;
  if (format == nullptr || *format != "pcaseg.vocabulary" || tensor == nullptr)
    refuse(path + ": a safetensors file, but not a vocabulary; make one with pcaseg vocab");
  if (version == nullptr || (*version != "1" && *version != "2"))
    refuse(path + ": vocabulary format " + (version == nullptr ? "None" : repr(std::string_view(*version))) +
           " is not '1' or '2', which this pcaseg reads; upgrade pcaseg or make it anew with pcaseg vocab");
  const Json names = parse_json(needed(file, "names"));
  if (names.kind != Kind::array) damaged("names is not a list");
  Vocabulary vocabulary;
  vocabulary.encoder_sha256 = needed(file, "encoder_sha256");
  const Tree tree = *version == "2" ? tree_of(file) : Tree{};
  vocabulary.names = checked_names(names.items);
  plant(tree, vocabulary);
  Shape shape;
  for (const Json& length : tensor->find("shape")->items) shape.push_back(length.whole());
  const std::string& type = tensor->find("dtype")->text;
  if (type != "F32" || shape.size() != 2 || shape[0] == 0 || shape[1] == 0)
    damaged("vocabulary: embeddings are " + type + " " + tuple(shape) + ", not float32 (T, D)" + make_anew);
  vocabulary.width = shape[1];
  vocabulary.embeddings.resize(file.data.size() / sizeof(float));
  std::memcpy(vocabulary.embeddings.data(), file.data.data(), file.data.size());
  if (shape[0] != vocabulary.rows())
    damaged("vocabulary: " + std::to_string(vocabulary.rows()) + " names but " + std::to_string(shape[0]) +
            " embeddings" + make_anew);
  check_norms(vocabulary);
  check_count(size_t(vocabulary.rows()));
  return vocabulary;
}

}  // namespace

Vocabulary load_vocabulary(const std::string& path) {
  std::string bytes;
  try {
    if (kind_of(path) != PathKind::file) refuse(path + ": no such vocabulary file; check the path");
    bytes = read_file(path, most_bytes);
  } catch (const std::system_error& reason) {
    refuse(refusal(path, reason.code().value()));
  }
  SafeTensors file;
  try {
    file = parse(bytes);
    check_whole(file);
  } catch (const std::invalid_argument& reason) {
    refuse(path + ": damaged or not a safetensors file (" + reason.what() + ")" + make_anew);
  }
  try {
    return filled(file, path);
  } catch (const std::invalid_argument& reason) {
    refuse(path + ": " + reason.what() + " (in the file)" + make_anew);
  }
}

void check_vocabulary(const Vocabulary& vocabulary) {
  std::vector<Json> names(vocabulary.names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    names[i].kind = Kind::string;
    names[i].text = vocabulary.names[i];
  }
  checked_names(names);
  check_norms(vocabulary);
}

void check_fits(const Vocabulary& vocabulary, const Manifest& manifest, const std::string& source) {
  const std::string mend = "; make it anew with pcaseg vocab and this bundle";
  if (vocabulary.encoder_sha256 != manifest.encoder_sha256)
    refuse(source + ": made by another text encoder (" + start_of(vocabulary.encoder_sha256, 12) +
           "..., the bundle has " + start_of(manifest.encoder_sha256, 12) + "...)" + mend);
  if (vocabulary.width != manifest.embed_dim)
    refuse(source + ": embeddings of " + std::to_string(vocabulary.width) + " numbers, the bundle takes " +
           std::to_string(manifest.embed_dim) + mend);
}

}  // namespace pcaseg

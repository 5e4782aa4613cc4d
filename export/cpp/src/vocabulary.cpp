#include "vocabulary.h"

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

std::vector<std::string> parse_names(const std::string& text) {
  const Json names = parse_json(text);
  if (names.kind != Kind::array) damaged("names is not a list");
  std::vector<std::string> parsed;
  for (const Json& name : names.items) {
    if (name.kind != Kind::string) damaged("class list: class " + std::to_string(parsed.size()) + " is not a string; give names only");
    parsed.push_back(name.text);
  }
  return parsed;
}

/// Refuses names that no vocabulary has.
void check_names(const Vocabulary& vocabulary) {
  const auto count = std::to_string(vocabulary.count());
  if (vocabulary.names.empty()) damaged("vocabulary: no class names; give at least one");
  if (vocabulary.count() > most_classes)
    damaged("vocabulary: " + count + " classes do not fit 16-bit labels; give at most 65535");
  for (size_t i = 0; i < vocabulary.names.size(); ++i) {
    const std::string& name = vocabulary.names[i];
    const std::string place = "vocabulary: class " + std::to_string(i);
    const size_t characters = decode_utf8(name).size();
    if (characters > most_characters)
      damaged(place + " (" + repr(std::string_view(start_of(name, 30))) + "...) has " + std::to_string(characters) +
              " characters; shorten it to 500 or fewer");
    if (name.find_first_not_of(" \t\n\r") == name.npos)
      damaged(place + " is blank (" + repr(std::string_view(name)) + "); remove it or name it");
  }
}

/// Refuses rows that are not of unit norm.
void check_norms(const Vocabulary& vocabulary) {
  for (int64_t row = 0; row < vocabulary.count(); ++row) {
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
  if (version != nullptr && *version == "2")
    refuse(path + ": synonyms that count by themselves and parts are not read in C++; make it anew with pcaseg vocab and plain names");
  if (version == nullptr || *version != "1")
    refuse(path + ": vocabulary format " + (version == nullptr ? "None" : repr(std::string_view(*version))) +
           " is not '1' or '2', which this pcaseg reads; upgrade pcaseg or make it anew with pcaseg vocab");
  const std::string *names = metadata_of(file, "names"), *encoder = metadata_of(file, "encoder_sha256");
  if (names == nullptr) damaged("names is missing");
  Vocabulary vocabulary;
  vocabulary.names = parse_names(*names);
  if (encoder == nullptr) damaged("encoder_sha256 is missing");
  vocabulary.encoder_sha256 = *encoder;
  check_names(vocabulary);
  Shape shape;
  for (const Json& length : tensor->find("shape")->items) shape.push_back(length.whole());
  const std::string& type = tensor->find("dtype")->text;
  if (type != "F32" || shape.size() != 2 || shape[0] == 0 || shape[1] == 0)
    damaged("vocabulary: embeddings are " + type + " " + tuple(shape) + ", not float32 (T, D)" + make_anew);
  vocabulary.width = shape[1];
  vocabulary.embeddings.resize(file.data.size() / sizeof(float));
  std::memcpy(vocabulary.embeddings.data(), file.data.data(), file.data.size());
  if (shape[0] != vocabulary.count())
    damaged("vocabulary: " + std::to_string(vocabulary.count()) + " names but " + std::to_string(shape[0]) +
            " embeddings" + make_anew);
  check_norms(vocabulary);
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
  check_names(vocabulary);
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

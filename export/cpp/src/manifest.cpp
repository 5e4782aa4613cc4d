#include "manifest.h"

#include <algorithm>

#include "error.h"
#include "json.h"
#include "python_text.h"

namespace pcaseg {
namespace {

constexpr int64_t schema_version = 2, largest_side_px = 8192, most_windows = 256, most_file_bytes = int64_t(1) << 40;
const char* const export_anew = "export the bundle anew";

using Names = std::vector<std::string>;
using Kind = Json::Kind;

/// A part of the manifest: its value, and the dotted path to it that messages give.
class Field {
 public:
  Field(const Json& value, const std::string& source, const std::string& path = "")
      : json(value), source_(source), path_(path) {}

  [[noreturn]] void refuse(const std::string& fault) const {
    throw Error(PCASEG_BAD_BUNDLE, source_ + ": " + fault + "; " + export_anew);
  }

  [[noreturn]] void refuse_kind(const std::string& wanted) const {
    refuse(path_ + " is " + shown(json) + ", not " + wanted);
  }

  Field require(Kind kind, const char* wanted) const {
    if (json.kind != kind) refuse_kind(wanted);
    return *this;
  }

  /// A member that has to be there; of an object.
  Field at(const std::string& name) const {
    const std::string path = path_.empty() ? name : path_ + "." + name;
    if (json.kind != Kind::object) refuse_kind("an object");
    const Json* member = json.find(name);
    if (member == nullptr) refuse(path + " is missing");
    return Field(*member, source_, path);
  }

  Field item(size_t index) const { return Field(json.items[index], source_, path_ + "[" + std::to_string(index) + "]"); }

  /// The members of an object that maps any names.
  std::vector<std::pair<std::string, Field>> entries() const {
    require(Kind::object, "dict");
    std::vector<std::pair<std::string, Field>> entries;
    for (const auto& [key, member] : json.members) entries.emplace_back(key, Field(member, source_, path_ + "." + key));
    return entries;
  }

  std::string text() const { return require(Kind::string, "str").json.text; }

  /// A whole number.
  Field whole() const { return require(Kind::integer, "int"); }

  /// A whole number of at least 1.
  int64_t positive() const {
    if (json.whole() < 1) refuse(path_ + " is " + json.text + ", not 1 or more");
    return json.whole();
  }

  void check_sha256() const {
    const bool is_hash = json.text.size() == 64 && json.text.find_first_not_of("0123456789abcdef") == std::string::npos;
    if (!is_hash) refuse(path_ + " is not a SHA-256 (" + shown(json) + ")");
  }

  std::string one_of(const Names& choices) const {
    const bool is_choice = json.kind == Kind::string && std::count(choices.begin(), choices.end(), json.text) > 0;
    if (!is_choice) refuse_kind("one of " + join(choices, ", "));
    return json.text;
  }

  bool is_null() const { return json.kind == Kind::null; }

  const Json& json;

 private:
  const std::string& source_;
  const std::string path_;
};

void check_tensors(const Field& field) {
  for (const auto& [name, tensor] : field.entries()) {
    const Field shape = tensor.at("shape").require(Kind::array, "tuple");
    for (size_t i = 0; i < shape.json.items.size(); ++i)
      if (shape.item(i).json.kind != Kind::string) shape.item(i).require(Kind::integer, "int or str");
    tensor.at("dtype").text();
    tensor.at("meaning").text();
  }
}

void check_graph_types(const Field& graphs) {
  for (const auto& [name, info] : graphs.entries()) {
    info.at("nodes").whole();
    for (const auto& [operator_name, count] : info.at("operators").entries()) count.whole();
  }
}

/// Checks, in the order of the Python runtime's fields, that each is there and of its type.
void check_types(const Field& top) {
  top.at("preset").text();
  top.at("aggregation").one_of({"parallel", "serial", "added"});
  top.at("dense_mode").one_of({"csa", "qq"});
  const Field weights = top.at("weights");
  weights.at("kind").one_of({"checkpoint", "shipped", "clip-only", "seeded"});
  if (!weights.at("path").is_null()) weights.at("path").require(Kind::string, "str or null");
  weights.at("sha256").text();
  if (!weights.at("seed").is_null()) weights.at("seed").require(Kind::integer, "int or null");
  top.at("precision").one_of({"float32", "float16"});
  top.at("opset").whole();
  top.at("layer_norm").one_of({"operator", "decomposed"});
  top.at("graph").one_of({"logits", "labels"});
  if (!top.at("strategy").is_null()) top.at("strategy").one_of({"single", "sliding"});
  if (const Field size = top.at("image_size"); !size.is_null()) {
    size.require(Kind::array, "tuple");
    if (size.json.items.size() != 2) size.refuse("image_size has " + std::to_string(size.json.items.size()) + " entries, not 2");
    for (size_t i : {0, 1}) size.item(i).whole();
  }
  top.at("image").at("size_px").whole();
  for (const char* name : {"image_px", "window_px", "stride_px"}) top.at("sliding").at(name).whole();
  const Field text = top.at("text");
  for (const char* name : {"embed_dim", "prompts", "context_length"}) text.at(name).whole();
  text.at("template").text();
  text.at("max_classes").whole();
  text.at("encoder_sha256").text();
  check_tensors(top.at("inputs"));
  check_tensors(top.at("outputs"));
  check_graph_types(top.at("graphs"));
  for (const auto& [name, version] : top.at("versions").entries()) version.text();
  for (const auto& [name, file] : top.at("files").entries()) {
    file.at("sha256").text();
    file.at("bytes").whole();
  }
  if (const Json* shortlist = top.json.find("shortlist"); shortlist != nullptr && shortlist->kind != Kind::null)
    top.at("shortlist").require(Kind::integer, "int or null");
}

/// Windows of a protocol whose sizes are positive, however many.
double window_count(const Sliding& sliding) {
  const double room = double(sliding.image_px) - double(sliding.window_px);
  const double along = room < 0 ? 0 : double(int64_t(room) / sliding.stride_px + 1);
  return along * along;
}

std::string described(const Field& sliding) {
  Names parts;
  for (const char* name : {"image_px", "window_px", "stride_px"})
    parts.push_back(std::string(name) + "=" + sliding.at(name).json.text);
  return "Sliding(" + join(parts, ", ") + ")";
}

void check_graph(const Field& top, const Manifest& manifest) {
  const Field strategy = top.at("strategy"), image_size = top.at("image_size");
  const std::string graph = top.at("graph").text();
  if (manifest.is_labels == strategy.is_null())
    top.refuse("strategy is " + shown(strategy.json) + " for a graph of " + graph);
  if (manifest.shortlist && (*manifest.shortlist < 1 || *manifest.shortlist > most_kept))
    top.refuse("shortlist=" + top.at("shortlist").json.text + ": give 1 to 256 classes, or None for 256");
  if (manifest.image_size) {
    const auto [height, width] = *manifest.image_size;
    if (!manifest.is_labels) top.refuse("image_size is set for a graph of " + graph);
    if (std::min(height, width) < 1 || std::max(height, width) > largest_side_px)
      top.refuse("image_size is " + shown(image_size.json) + ", not 1 to 8192 px");
  }
  for (const auto& [name, info] : top.at("graphs").entries()) {
    if (manifest.find(name) == nullptr) top.refuse("graphs." + name + " is of no file of the bundle");
    const Field nodes = info.at("nodes");
    long double sum = 0;
    bool is_positive = true;
    for (const auto& [operator_name, count] : info.at("operators").entries()) {
      sum += count.json.whole();
      is_positive = is_positive && count.json.whole() >= 1;
    }
    if (nodes.json.whole() != sum || !is_positive)
      top.refuse("graphs." + name + " counts " + nodes.json.text + " nodes wrongly");
  }
}

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

/// Checks what types cannot say, in the order of the Python runtime.
void check_values(const Field& top, const Manifest& manifest) {
  const Field text = top.at("text"), sliding = top.at("sliding"), size = top.at("image").at("size_px");
  const Sliding& windows = manifest.sliding;
  top.at("opset").positive();
  size.positive();
  for (const char* name : {"image_px", "window_px", "stride_px"}) sliding.at(name).positive();
  for (const char* name : {"embed_dim", "prompts", "context_length", "max_classes"}) text.at(name).positive();
  if (std::max(manifest.size_px, windows.image_px) > largest_side_px || window_count(windows) > most_windows)
    top.refuse(size.json.text + " px inputs and " + described(sliding) + " are beyond 8192 px or 256 windows");
  for (const auto& [name, wanted] : {std::pair("prompts", 1), std::pair("context_length", 77)}) {
    const Json& found = text.at(name).json;
    if (found.whole() != wanted)
      top.refuse("text." + std::string(name) + " is " + found.text + ", where this version embeds with " +
                 std::to_string(wanted));
  }
  top.at("weights").at("sha256").check_sha256();
  text.at("encoder_sha256").check_sha256();
  for (const auto& [name, file] : top.at("files").entries()) file.at("sha256").check_sha256();
  if (count_of(text.at("template").text(), "{}") != 1)
    top.refuse("text.template " + shown(text.at("template").json) + " lacks one {}");
  check_graph(top, manifest);
  const int64_t rest = windows.image_px - windows.window_px;
  if (rest < 0 || rest % windows.stride_px != 0 || windows.stride_px > windows.window_px)
    top.refuse("sliding windows " + described(sliding) + " do not cover the image");
}

Manifest filled(const Field& top) {
  Manifest manifest;
  manifest.is_labels = top.at("graph").text() == "labels";
  if (!top.at("strategy").is_null()) manifest.strategy = top.at("strategy").text();
  if (const Field size = top.at("image_size"); !size.is_null())
    manifest.image_size = {size.json.items[0].whole(), size.json.items[1].whole()};
  manifest.size_px = top.at("image").at("size_px").json.whole();
  const Field sliding = top.at("sliding"), text = top.at("text");
  manifest.sliding = {sliding.at("image_px").json.whole(), sliding.at("window_px").json.whole(),
                      sliding.at("stride_px").json.whole()};
  manifest.embed_dim = text.at("embed_dim").json.whole();
  manifest.encoder_sha256 = text.at("encoder_sha256").text();
  manifest.precision = top.at("precision").text();
  if (const Json* shortlist = top.json.find("shortlist"); shortlist != nullptr && shortlist->kind == Kind::integer)
    manifest.shortlist = shortlist->whole();
  for (const auto& [name, file] : top.at("files").entries())
    manifest.files.push_back({name, file.at("sha256").text(), file.at("bytes").json.whole()});
  return manifest;
}

void check_version(const Json& data, const std::string& source) {
  const Json* found = data.find("schema_version");
  if (found != nullptr && found->kind == Kind::integer && found->whole() > schema_version)
    throw Error(PCASEG_BAD_BUNDLE, source + ": schema_version " + found->text + " is newer than " +
                                       std::to_string(schema_version) + ", which this pcaseg reads; upgrade pcaseg");
  if (found == nullptr || found->kind != Kind::integer || found->whole() != schema_version)
    throw Error(PCASEG_BAD_BUNDLE, source + ": schema_version is " + repr(found == nullptr ? Json() : *found) +
                                       ", not " + std::to_string(schema_version) + "; " + export_anew);
}

}  // namespace

std::vector<std::pair<int64_t, int64_t>> Sliding::origins() const {
  std::vector<std::pair<int64_t, int64_t>> origins;
  for (int64_t top = 0; top <= image_px - window_px; top += stride_px)
    for (int64_t left = 0; left <= image_px - window_px; left += stride_px) origins.emplace_back(top, left);
  return origins;
}

const FileEntry* Manifest::find(const std::string& name) const {
  const auto found = std::find_if(files.begin(), files.end(), [&](const FileEntry& file) { return file.name == name; });
  return found == files.end() ? nullptr : &*found;
}

std::vector<std::string> Manifest::outputs() const {
  if (is_labels) return {"labels", "confidence"};
  return shortlist ? std::vector<std::string>{"logits", "classes"} : std::vector<std::string>{"logits"};
}

Manifest read_manifest(const std::string& text, const std::string& source) {
  Json data;
  try {
    data = parse_json(text);
  } catch (const std::invalid_argument& reason) {
    throw Error(PCASEG_BAD_BUNDLE, source + ": not readable as JSON (" + reason.what() + "); " + export_anew);
  }
  const Field top(data, source);
  if (data.kind != Kind::object) top.refuse("not a JSON object");
  check_version(data, source);
  check_types(top);
  const Manifest manifest = filled(top);
  check_values(top, manifest);
  for (const auto& [name, file] : top.at("files").entries()) {
    check_file_name(name, source);
    const Json& bytes = file.at("bytes").json;
    if (bytes.whole() < 0 || bytes.whole() > most_file_bytes)
      top.refuse("files." + name + ".bytes is " + bytes.text + ", the size of no file");
  }
  return manifest;
}

void check_file_name(const std::string& name, const std::string& source) {
  bool is_safe = name.find_first_of("\\:") == name.npos;
  for (char32_t point : decode_utf8(name)) is_safe = is_safe && is_printable(point);
  for (size_t at = 0; at <= name.size();) {
    const size_t end = std::min(name.find('/', at), name.size());
    const std::string part = name.substr(at, end - at);
    is_safe = is_safe && !part.empty() && part != "." && part != "..";
    at = end + 1;
  }
  if (!is_safe)
    throw Error(PCASEG_BAD_BUNDLE, source + ": files has the unsafe name " + repr(name) +
                                       "; do not use this bundle, " + export_anew);
}

}  // namespace pcaseg
